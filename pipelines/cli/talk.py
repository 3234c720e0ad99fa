"""Talking with a model: `chat`."""

import sys
from typing import Annotated

import typer

from .app import Sets, app


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder: whole, an adapter, MoReS.")],
    image: Annotated[list[str] | None, typer.Option(help="A picture for the first question (repeatable).")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that hold this share.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = 512,
    seed: Annotated[int | None, typer.Option(help="Random seed of the draws.")] = None,
    system: Annotated[str, typer.Option(help="A system prompt in place of the template's own.")] = "",
    four_bits: Annotated[
        bool, typer.Option("--4bit", help="Hold the decoder's weights in 4 bits (bitsandbytes).")
    ] = False,
    sets: Sets = None,
) -> None:
    """Talk with a model about pictures; lines that are piped in are its turns.

    Example: `vinnow chat runs/lora/model --image photo.jpg`, then `/image other.jpg`, `/reset`, `/help`

    `--set` reaches `template`, `image_mode`, `pictures`, `max_len`, `precision` and `device`.
    """
    from ...evaluate.sampling import Sampling
    from ...evaluate.talk import Conversation, TalkConfig, open_generator
    from ..chat import HELP, Terminal
    from ..chat import chat as work
    from ..runs.plain_yaml import settings

    asked = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_tokens, "seed": seed}
    sampling = Sampling.parse(asked, "chat")
    values = settings(sets) | ({"quantise": "nf4"} if four_bits else {})
    conversation = Conversation(open_generator(TalkConfig.fitting(model, values)), sampling, system)
    for path in image or []:
        conversation.show(path)
    terminal = Terminal(live=sys.stdin.isatty())
    if terminal.live:
        terminal.tell(HELP)
    work(conversation, terminal)
