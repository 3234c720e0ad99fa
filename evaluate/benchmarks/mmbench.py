"""MMBench: lettered options on pictures, by CircularEval: a question is right if it is in each shift of its options.

Asked as LLaVA's `model_vqa_mmbench.py` asks; read, grouped and counted as MMBench's own `eval_mmbench.py` does
(`letters.py`), but for what that has ChatGPT match: such an answer is wrong here, and counted. The official tables bring
the shifts as rows of their own, whose index is that of the question plus 1,000,000 for each; of a table without any the
shifts are made.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ...store.errors import InputError
from ...store.files import join, list_files
from ..benchmark import LETTER, Answered, Benchmark, Files, Metrics, reference
from ..letters import named_option, shifts
from ..official_rows import HIDDEN, Ids, Row, each, question, text_of
from ..picture_table import IMAGE, INDEX, is_none, rows_of, the_picture
from ..xlsx import write_xlsx

LETTERS = "ABCD"
# what the index of a shift has more than that of the round before
ROUND = 1_000_000
HEADLINE = "CircularEval accuracy"


class MMBench(Benchmark):
    """In English: a table whose name begins with mmbench and has no part "cn"."""

    name, suffix = "mmbench", LETTER
    files = "mmbench_dev_20230712.tsv, mmbench_dev_en_….tsv or mmbench_test_….tsv"
    inside = True
    tokens = 1024
    chinese: ClassVar[bool] = False
    example = Record(
        0,
        "mmbench",
        "mmbench",
        (),
        [{"from": "human", "value": f"Which?\nA. a cat\nB. a dog{LETTER}"}, {"from": "gpt", "value": "B"}],
        {"choices": ["a cat", "a dog"]},
    )

    def score(self, answer: str, record: Record) -> float:
        """Return 1 or 0 for one round."""
        return float(not record.extra.get("hidden") and self._read(answer, record) == reference(record).strip())

    def check(self, record: Record) -> None:
        """Refuse a record without options, or whose answer is no letter."""
        choices = record.extra.get("choices")
        if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
            raise RefusedError("unscorable", f"{self.name} wants the record's `choices`, a list of texts")
        if not record.extra.get("hidden") and reference(record).strip() not in list(LETTERS):
            what = (
                f"{self.name} wants one of the letters {LETTERS} as the record's answer, not {reference(record)!r:.60}."
            )
            raise RefusedError("unscorable", what)

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the rounds of all questions; see `Benchmark.records`."""
        path = self._table(files.folder)
        rows = list(rows_of(path, files.spare, ("question", "A", "B")))
        whole = [r for r in rows if not isinstance(r, RefusedError)]
        shown, ids = {r[INDEX]: r[IMAGE] for r in whole}, Ids()
        circular = any((_number(r[INDEX]) or 0) >= ROUND for r in whole)

        def make(row: Row) -> Row:
            return _round(row, the_picture(shown, row[IMAGE]), ids, self.name)

        rounds = list(each(path, rows, make))
        if not circular:
            rounds = [
                again for row in rounds for again in ([row] if isinstance(row, RefusedError) else _all_rounds(row))
            ]
        lost = _lost_rounds(rows, rounds)
        for row in rounds:
            yield row if isinstance(row, RefusedError) or row["group"] not in lost else row | {"lost": True}

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the accuracy by CircularEval: of all questions, by split, ability (l2-category) and category."""
        groups: dict[Any, list[Answered]] = {}
        for row in rows:
            groups.setdefault(row.record.extra.get("group", row.record.sample_id), []).append(row)
        known = [g for g in groups.values() if not any(r.record.extra.get("hidden") for r in g)]
        notes = self._notes(list(groups.values()), known)
        if not known:
            return Metrics(HEADLINE, None, {}, notes)
        right = [all(r.score == 1 for r in g) and not g[0].record.extra.get("lost") for g in known]
        firsts = [min(g, key=lambda r: r.record.extra.get("round", 0)).record for g in known]
        parts = {"rounds": sum(r.score == 1 for g in known for r in g) / sum(map(len, known))}
        for field, label in (("split", "split "), ("l2-category", ""), ("category", "category ")):
            for value in sorted({str(f.extra[field]) for f in firsts if f.extra.get(field)}):
                some = [r for r, f in zip(right, firsts, strict=True) if str(f.extra.get(field)) == value]
                parts[label + value] = sum(some) / len(some)
        return Metrics(HEADLINE, sum(right) / len(right), parts, notes)

    def submit(self, rows: Sequence[Answered], files: Files, out: str) -> str:
        """Write `submission.xlsx`, which MMBench's server takes: a row a round; see `Benchmark.submit`."""
        listed = []
        for row in sorted(rows, key=lambda r: r.record.extra["number"]):
            kept = row.record.extra
            options = [*kept["choices"], *[None] * len(LETTERS)][: len(LETTERS)]
            listed.append([kept["number"], kept["asked"], *options, row.answer])
        path = join(out, "submission.xlsx")
        write_xlsx(path, [INDEX, "question", *LETTERS, "prediction"], listed)
        return path

    def _read(self, answer: str, record: Record) -> str | None:
        return named_option(answer, record.extra.get("choices") or [])

    def _notes(self, groups: list[list[Answered]], known: list[list[Answered]]) -> list[str]:
        few = sum(len(g) < len(g[0].record.extra.get("choices") or []) for g in groups)
        lost = sum(bool(g[0].record.extra.get("lost")) for g in groups)
        said = [r for g in known for r in g if r.answer.strip()]
        unread = sum(self._read(r.answer, r.record) is None for r in said)
        notes = {
            "questions have answers that are hidden: no score is claimed for them": len(groups) - len(known),
            "questions have fewer rounds than options": few,
            "questions lost a round (its row is none): they count as wrong": lost,
            "answers name no option, and are wrong: MMBench's server asks ChatGPT what they mean": unread,
        }
        return [f"{count:,} {what}" for what, count in notes.items() if count]

    def _table(self, folder: str) -> str:
        names = [p.rsplit("/", 1)[-1] for p in list_files(folder, ".tsv")]
        parts = {name: re.split(r"[-_.]", name.lower()) for name in names}
        there = [n for n, p in parts.items() if p[0] == "mmbench" and ("cn" in p) == self.chinese]
        if len(there) != 1:
            named = f": {', '.join(there)}" if there else ""
            raise InputError(
                f"{folder!r} should hold one table of {self.name} ({self.files}); it holds {len(there)}{named}."
            )
        return join(folder, there[0])


def _round(row: Row, image: str, ids: Ids, name: str) -> Row:
    index = _number(row[INDEX])
    if index is None:
        raise RefusedError("unscorable", f"{INDEX} is {row[INDEX]!r:.60}, no whole number")
    ids.new(str(index))
    options: list[str] = []
    for letter in LETTERS:  # as the official script: they end at the first that is none
        if is_none(row.get(letter)):
            break
        options.append(row[letter])
    hidden, answer = is_none(row.get("answer")), str(row.get("answer")).strip()
    if not options:
        raise RefusedError("unscorable", f"row {index} has no options")
    if not hidden and answer not in list(LETTERS):
        raise RefusedError("unscorable", f"answer is {answer!r:.60}, none of {LETTERS}")
    if not hidden and is_none(row.get(answer)):
        raise RefusedError("unscorable", f"answer is {answer}, and option {answer} of row {index} is empty")
    kept = {k: row[k] for k in ("category", "l2-category", "split", "source") if not is_none(row.get(k))}
    kept["comes_from"] = kept.pop("source", "")
    kept |= {"hint": "" if is_none(row.get("hint")) else row["hint"], "source": name}
    kept |= {"group": index % ROUND, "round": index // ROUND, "task": kept.get("category", name)}
    return _asked(index, text_of(row, "question"), options, None if hidden else answer, image, **kept)


def _asked(number: int, asked: str, options: list[str], answer: str | None, image: str, **kept: Any) -> Row:
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options))
    text = f"{kept['hint']}\n{asked}" if kept["hint"] else asked
    kept |= {"id": str(number), "question_id": number, "number": number, "asked": asked, "choices": options}
    kept |= {"hidden": True} if answer is None else {}
    return question(f"{text}\n{listed}", HIDDEN if answer is None else answer, image, **kept)


def _all_rounds(row: Row) -> Iterator[Row]:
    """Yield a question with its options shifted, as often as it has options."""
    options, number, answer = row["choices"], row["number"], row["conversations"][1]["value"]
    if row.get("hidden"):
        answer = None
    elif LETTERS.index(answer) >= len(options):  # an option before it is none: it stays as it is, and as wrong
        yield row
        return
    for k, (shifted, right) in enumerate(shifts(options, answer)):
        kept = {n: v for n, v in row.items() if n not in ("conversations", "image", "number", "asked")}
        yield _asked(number + k * ROUND, row["asked"], shifted, right, row["image"], **(kept | {"round": k}))


def _lost_rounds(rows: list[Row | RefusedError], rounds: list[Row | RefusedError]) -> set[int]:
    """Return the questions of which a row is none: by its index, or, where that cannot be read, by too few rounds."""
    kept = [row for row in rounds if not isinstance(row, RefusedError)]
    asked = {row["number"] for row in kept}
    numbers = [None if isinstance(r, RefusedError) else _number(r[INDEX]) for r in rows]
    lost = {n % ROUND for n in numbers if n is not None and n not in asked}
    if None in numbers:
        counts = Counter(row["group"] for row in kept)
        lost |= {row["group"] for row in kept if counts[row["group"]] < len(row["choices"])}
    return lost


def _number(index: str) -> int | None:
    text = index.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


BENCHMARK = MMBench
