"""MME: fourteen categories, two questions a picture; a category's score is 100 × (acc + acc+), of 200.

acc is the share of right answers, acc+ that of pictures of which both are right; perception is the sum of ten categories,
cognition of four. Source: MME's `calculation.py` and LLaVA's prompts, in which "Please answer yes or no." is left out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ...store.errors import InputError
from ...store.files import exists, join, list_files, read_bytes
from ..benchmark import SHORT, Answered, Files, Metrics, count_note
from ..official_rows import Ids, question
from .yes_no import YesNo

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_YES_OR_NO, _PICTURES = "Please answer yes or no.", (".jpg", ".png", ".jpeg")


class MME(YesNo):
    """Yes or no in the first four letters of an answer; another answer is wrong."""

    name, suffix = "mme", SHORT
    files = "CATEGORY.txt, or CATEGORY/*.txt"

    def score(self, answer: str, record: Record) -> float:
        """Return 1 or 0."""
        return float(_read(answer) == record.conversations[1]["value"].strip().lower().removesuffix("."))

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions of all categories; see `Benchmark.records`."""
        missing = []
        for category in (*PERCEPTION, *COGNITION):
            paths = _files(files.folder, category)
            if not paths:
                missing.append(category)
            ids = Ids()
            for path in paths:
                yield from _questions(path, category, files.images, ids)
        if missing:
            raise InputError(
                f"{files.folder!r} lacks MME's categories {', '.join(missing)}; its score is a sum of all."
            )

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the scores of perception, cognition and each category, with acc and acc+."""
        categories: dict[str, list[Answered]] = {}
        for row in rows:
            categories.setdefault(row.record.task, []).append(row)
        parts, notes, sums = {}, [], {"perception": 0.0, "cognition": 0.0}
        for category in sorted(categories):
            some = categories[category]
            pictures: dict[tuple[str, ...], list[float]] = {}
            for row in some:
                pictures.setdefault(row.record.images, []).append(row.score)
            odd = sum(len(scores) != 2 for scores in pictures.values())
            notes += [f"{category}: {odd} pictures have not two questions"] if odd else []
            acc = sum(r.score for r in some) / len(some)
            plus = sum(all(s == 1 for s in scores) for scores in pictures.values()) / len(pictures)
            parts |= {f"{category} acc": acc, f"{category} acc+": plus, category: 100 * (acc + plus)}
            if category in (*PERCEPTION, *COGNITION):
                sums["cognition" if category in COGNITION else "perception"] += parts[category]
        lacking = [c for c in (*PERCEPTION, *COGNITION) if c not in categories]
        notes += [f"no questions of {', '.join(lacking)}: the sums are of fewer"] if lacking else []
        unclear = (bool(r.answer.strip()) and _read(r.answer) == "other" for r in rows)
        notes += count_note("answers begin with neither yes nor no, and are wrong", unclear)
        return Metrics("perception", sums["perception"], {"cognition": sums["cognition"]} | parts, notes)


def _read(answer: str) -> str:
    start = answer.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def _files(folder: str, category: str) -> list[str]:
    if exists(join(folder, f"{category}.txt")):
        return [join(folder, f"{category}.txt")]
    inside = join(folder, category)
    return list_files(join(inside, "questions_answers_YN"), ".txt") or list_files(inside, ".txt")


def _questions(path: str, category: str, images: str, ids: Ids) -> Iterator[dict[str, Any] | RefusedError]:
    stem = path.rsplit("/", 1)[-1].removesuffix(".txt")
    for number, line in enumerate(read_bytes(path).decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip():
            continue
        cells = [c.strip() for c in line.strip().split("\t")]
        if len(cells) not in (2, 3) or cells[-1].lower() not in ("yes", "no") or not cells[-2]:
            what = f"{category}/{stem}.txt, line {number}: {line!r:.60} is no (picture,) question and yes or no"
            yield RefusedError("unscorable", what)
            continue
        image = _picture(images, category, cells[0] if len(cells) == 3 else "", stem)
        try:
            ids.new(f"{cells[-2]!r} of {image}", "the question")
        except RefusedError as error:
            yield RefusedError(error.reason, f"{category}/{stem}.txt, line {number}: {error}")
            continue
        text = cells[-2].replace(_YES_OR_NO, "").strip()
        kept = {"id": f"{category}/{stem}/{number}", "question_id": image, "asked_as": cells[-2]}
        yield question(text, cells[-1].lower(), image, **kept, source="mme", category=category, task=category)


def _picture(images: str, category: str, named: str, stem: str) -> str:
    """Return a picture's path below the root: in its category's folder, or in `images` there."""
    names = [named] if named else [stem + ending for ending in _PICTURES]
    places = [f"{category}/{folder}{n}" for folder in ("", "images/") for n in names]
    return next((p for p in places if ".." not in p and exists(join(images, p))), places[0])


BENCHMARK = MME
