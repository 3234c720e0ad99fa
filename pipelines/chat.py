"""`vinnow chat`: one conversation, on a terminal or piped. Each line is a turn, or a command that begins with `/`."""

import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..evaluate.talk import Conversation
from ..store.errors import InputError, suggest

HELP = "/image FILE shows a picture with your next words, /reset begins anew, /help, /exit (or Ctrl-D)."
COMMANDS = ("/image", "/reset", "/help", "/exit")


@dataclass(frozen=True)
class Terminal:
    """Where a chat is held. `live`: a person sits there, who is prompted and told of mistakes; else they end it."""

    live: bool

    def lines(self) -> Iterator[str]:
        """Yield what is said, until its end; a byte order mark in front of what is piped in is none of it."""
        # a line that is no UTF-8 is refused when its turn comes, whatever the locale makes of it
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")
        first = True
        while True:
            try:
                # input() alone gives a terminal its line editing
                line = input("you> ") if self.live else sys.stdin.readline()
            except EOFError:
                return
            if not self.live and not line:
                return
            yield line.rstrip("\n").removeprefix("\ufeff" if first and not self.live else "")
            first = False

    def show(self, piece: str) -> None:
        """Print a piece of an answer at once."""
        sys.stdout.write(piece)
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Print a line about the chat itself, beside the answers."""
        print(text, file=sys.stderr, flush=True)


def chat(conversation: Conversation, terminal: Terminal, lines: Iterable[str] | None = None) -> int:
    """Hold a conversation until its end; return how many questions were answered.

    Raises:
        InputError: where nobody sits at the terminal, a line that cannot be asked or done, or a picture that no question
            showed.
    """
    answered = 0
    for line in terminal.lines() if lines is None else lines:
        try:
            if line.startswith("/"):
                if not _command(line, conversation, terminal):
                    break
            elif line.strip():
                _turn(line, conversation, terminal)
                answered += 1
        except InputError as error:
            if not terminal.live:
                raise
            terminal.tell(f"{error} {HELP}")
    if not terminal.live and (unasked := conversation.waiting):
        raise InputError(
            f"no question came after {', '.join(map(repr, unasked))}: a picture is shown with the next words."
        )
    return answered


def _turn(line: str, conversation: Conversation, terminal: Terminal) -> None:
    reply = conversation.say(line, terminal.show)
    terminal.show("\n")
    if not reply.finite:
        raise InputError("the model's logits became NaN or infinite: its weights, or this precision, cannot answer.")
    if reply.finish == "length":
        terminal.tell(f"(cut off after {len(reply.tokens)} tokens: --max-tokens)")


def _command(line: str, conversation: Conversation, terminal: Terminal) -> bool:
    """Do what a command says; return whether the chat goes on."""
    name, _, rest = line.strip().partition(" ")
    if name == "/exit":
        return False
    if name == "/image":
        if not rest.strip():
            raise InputError("/image needs a file.")
        conversation.show(rest.strip())
    elif name == "/reset":
        conversation.reset()
    elif name == "/help":
        terminal.tell(HELP)
    else:
        raise InputError(f"unknown command {name!r}{suggest(name, COMMANDS)}.")
    return True
