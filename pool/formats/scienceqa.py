"""ScienceQA: a folder with `problems.json` and `pid_splits.json`, as LLaVA's converter and its shipped test lay it out.

Source: spec LLaVA §1.3. Both files are read whole: some 30 MB for all 21,208 problems.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ...store.errors import InputError, suggest
from ...store.files import exists, join, open_fs
from ..checks import IMAGE, ImageError, RefusedError
from ..images import resolve
from ..json_stream import read_fields
from .source import Format, Source

LETTERS = "ABCDE"
_KEPT = ("subject", "topic", "category", "grade", "skill", "choices", "answer", "solution")
_FILES = ("problems.json", "pid_splits.json")
# twice what all of ScienceQA takes
_MOST = 64 << 20


def qcm(problem: dict[str, Any]) -> tuple[str, str]:
    """Return question and answer of LLaVA's layout QCM-A: `The answer is B.`."""
    return _asked(problem), _bare(f"Answer: The answer is {LETTERS[problem['answer']]}.", "Answer: ")


def qcm_lea(problem: dict[str, Any]) -> tuple[str, str]:
    """Return question and answer of LLaVA's layout QCM-LEA: lecture and solution in front of the answer."""
    # LLaVA's converter takes a written-out \n for a newline
    lecture, solution = (problem[k].replace("\\n", "\n") for k in ("lecture", "solution"))
    answer = f"Answer: {lecture} {solution} The answer is {LETTERS[problem['answer']]}."
    return _asked(problem), _bare(answer, "Answer: ")


def shipped_test(problem: dict[str, Any]) -> tuple[str, str]:
    """Return question and answer of the test file that LLaVA ships: options a line each, the bare letter."""
    context = f"Context: {problem['hint']}\n" if problem["hint"] else ""
    options = "\n".join(f"{letter}. {c}" for letter, c in zip(LETTERS, problem["choices"], strict=False))
    return f"{context}{problem['question']}\n{options}", LETTERS[problem["answer"]]


LAYOUTS: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {"qcm": qcm, "qcm-lea": qcm_lea, "test": shipped_test}


def read(source: Source) -> Iterator[Any]:
    """Yield a split's problems in its order.

    Raises:
        InputError: a file is missing or not what it should be, or there is no such split.
    """
    problems, splits = (_whole(join(source.path, name)) for name in _FILES)
    if source.split not in splits:
        raise InputError(
            f"ScienceQA split {source.split!r} is not known (--split){suggest(source.split or '', splits)}"
        )
    if not isinstance(splits[source.split], list):
        raise InputError(f"{source.path!r}: pid_splits.json must hold a list of problems under {source.split!r}.")
    pids = [str(pid) for pid in splits[source.split]]
    places = _places(source, problems, pids)
    for pid in pids:
        yield _record(pid, problems.get(pid), source, places.get(pid))


def _whole(path: str) -> dict[str, Any]:
    fs, inner = open_fs(path)
    size = fs.get_file_info(inner).size or 0
    if size > _MOST:
        raise InputError(f"{path!r} has {size} bytes; ScienceQA's is read whole, up to {_MOST}.")
    return read_fields(path)


def _record(pid: str, problem: Any, source: Source, place: str | None) -> dict[str, Any] | RefusedError:
    if isinstance(problem, RefusedError):
        return problem
    if problem is None:
        return RefusedError("not_an_object", f"pid {pid} of the split is not in problems.json")
    try:
        asked, answer = LAYOUTS[source.layout or "qcm-lea"](problem)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return RefusedError("no_conversations", f"problem {pid} is not as it should be: {error!r}")
    record = {"id": pid, "source": "scienceqa", "task": problem.get("subject")}
    if place:
        record["image"] = place
        asked = f"{IMAGE}\n{asked}"  # where the check would put it anyway
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return record | {k: problem[k] for k in _KEPT if k in problem} | {"conversations": turns}


def _asked(problem: dict[str, Any]) -> str:
    choices = " ".join(f"({letter}) {c}" for letter, c in zip(LETTERS, problem["choices"], strict=False))
    context = problem["hint"].strip() or "N/A"
    return _bare(f"Question: {problem['question']}\nContext: {context}\nOptions: {choices}\n", "Question: ")


def _bare(text: str, label: str) -> str:
    # one pass over double spaces, and the label everywhere, as published (spec §1.3)
    text = text.replace("  ", " ").strip()
    return text.replace(label, "") if text.startswith(label) else text


def _places(source: Source, problems: dict[str, Any], pids: list[str]) -> dict[str, str]:
    """Return the picture's path of each problem that has one, in the folder of its split, of the one asked for, or in none.

    A picture that is not there is named in the folder of the first that is.
    """
    shown = {p: problems[p] for p in pids if isinstance(problems.get(p), dict) and problems[p].get("image")}
    there, usual = dict[str, str](), ""
    for pid, problem in shown.items():
        for folder in ("{split}/", f"{source.split}/", ""):
            place = _named(folder, pid, problem, source)
            if _is_there(source.image_root, place):
                usual = usual if there else folder
                there[pid] = place
                break
    return {pid: there.get(pid) or _named(usual, pid, problem, source) for pid, problem in shown.items()}


def _named(folder: str, pid: str, problem: dict[str, Any], source: Source) -> str:
    return f"{folder.replace('{split}', str(problem.get('split', source.split)))}{pid}/{problem['image']}"


def _is_there(root: str | None, place: str) -> bool:
    try:
        resolve(root, place)
    except ImageError:
        return False
    return True


def files(source: Source) -> list[str]:
    """Return the two files that the records come from."""
    return [join(source.path, name) for name in _FILES]


def root(source: Source) -> str:
    """Return the folder of pictures: `images` in the source where it is, else the source itself."""
    inside = join(source.path, "images")
    return inside if exists(inside) else source.path


SCIENCEQA = Format(
    "scienceqa",
    "a folder with problems.json and pid_splits.json; needs a split (train, val, test, …)",
    read,
    files,
    root,
    frozenset({"split", "layout"}),
)
