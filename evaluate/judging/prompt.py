"""What a judge is sent: a picture's description, a question, two answers, and the rule.

The order of the parts is that of LLaVA's `eval_gpt_review_bench.py`; rule and system text are our own words, in files to
be edited.
"""

from pathlib import Path

from ...store.errors import InputError
from ...store.files import read_bytes
from ...store.reading import reading
from ..remote.reply import Message
from .questions import OpenQuestion

# who is Assistant 1: judges prefer a place, so each pair is judged in both orders
REFERENCE_FIRST, MODEL_FIRST = "reference_first", "model_first"
_HERE = Path(__file__).with_name("prompts")


def read_text(path: str | None, name: str) -> str:
    """Return the text of a file, or of ours by that name.

    Raises:
        InputError: there is none, or it is empty.
    """
    path = path or str(_HERE / f"{name}.txt")
    with reading(path, f"a judge's {name}"):
        text = read_bytes(path).decode().strip()
    if not text:
        raise InputError(f"{path!r} is empty: it should hold the judge's {name}.")
    return text


def messages_of(question: OpenQuestion, answer: str, order: str, system: str, rule: str) -> list[Message]:
    """Return the prompt that has a model's answer judged beside the reference, in one of the orders."""
    first, second = (question.reference, answer) if order == REFERENCE_FIRST else (answer, question.reference)
    text = (
        f"[Context]\n{question.context}\n\n[Question]\n{question.text}\n\n"
        f"[Assistant 1]\n{first}\n\n[End of Assistant 1]\n\n[Assistant 2]\n{second}\n\n[End of Assistant 2]\n\n"
        f"[System]\n{rule}\n\n"
    )
    return [Message("system", system), Message("user", text)]


def by_side(scores: tuple[float, float], order: str) -> tuple[float, float]:
    """Return (the model's, the reference's) of the scores of Assistant 1 and Assistant 2."""
    return (scores[1], scores[0]) if order == REFERENCE_FIRST else scores
