"""A model's answers to ScienceQA and a language model → the paper's "complement" and "judge" (LLaVA §5.2).

The language model answers each question from its text. `OUT/evals.parquet` has what the two come to, so that it is compared
with the model's own evaluation by pairs; `OUT/outcomes.parquet` has all texts and letters. Every text is in
`OUT/asked.sqlite` before it counts: a run that was cut off, or is done again, pays for nothing twice.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from ...pool.reader import Pool
from ...pool.records import Record
from ...pool.refusals import IMAGE, RefusedError
from ...store.claim import check_out, claim
from ...store.errors import InputError
from ...store.files import exists, join, json_text, read_bytes, write_json
from ...store.refusals import read_refused
from ...store.tables import EVALS, OUTCOMES, read_rows, write_rows
from ...store.usage import Usage
from ..answering import Answerer, evals_of
from ..benchmark import Answered, count_choices, reference
from ..benchmarks.scienceqa import ScienceQA
from ..clusters import Clusters
from ..config import REPORT, TABLE
from ..metrics import scienceqa_letter
from ..remote.asking import ask, in_threads, text_of
from ..remote.cache import Cache
from ..remote.client import Client
from ..remote.config import RemoteSampling
from ..remote.reply import FAILURES, Message
from .outcomes import Outcome, counted, settled
from .prompt import read_text
from .same import refuse_other
from .scheme_config import SchemeConfig

OUTCOMES_TABLE, CACHE = "outcomes.parquet", "asked.sqlite"
_NO_ANSWER = "(no answer)"
_UNSEEN = "[Picture]\nThe question has a picture."


@dataclass
class SchemeReport:
    """`combined`, `model` and `second` (the language model alone): scienceqa's figures, as `benchmark.Metrics`.

    `either`: the share of questions that one of the two had right. `counts`: see `outcomes.counted`; `reasons`: of those of
    which the endpoint brought nothing, which count as wrong. `cost`: of all that is in the folder; `under_way`: requests
    that were under way at kills.
    """

    path: str
    rows: int = 0
    combined: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)
    either: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    cost: float = 0.0
    under_way: int = 0
    key: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Texts:
    system: str
    answer_rule: str
    final_rule: str


def judge_scienceqa(config: SchemeConfig, out: str, progress: Callable[[int, int], None] | None = None) -> SchemeReport:
    """Settle a model's answers with a language model's; write `OUT/evals.parquet`, and return what `OUT/evals.json` says.

    Raises:
        KeyMismatchError: `out` holds another judgement; lists what differs.
        EndpointError, DownError, BudgetError: the endpoint cannot be used, is down, or the cap of money is reached.
        InputError: no evaluation of scienceqa, or not of this pool; of too many questions the endpoint brought nothing.
    """
    out, place = (p if "://" in p else os.path.abspath(p) for p in (out, config.evaluation))
    if not exists(join(place, TABLE)):
        raise InputError(f"no evaluation at {place!r}: there is no {TABLE!r}. Make one with `vinnow evaluate`.")
    if config.pool is None and not exists(join(place, "pool")):
        raise InputError(
            f"{place!r} holds no pool of its questions, as one of official files does: name it with --pool."
        )
    pool = Pool(config.pool or join(place, "pool"))
    check_out(out, [place, pool.root, config.system, config.answer_rule, config.final_rule])
    run, records, answers = _answered(place, pool)
    unasked = {i for i in read_refused(place, Answerer.FOLDER)["sample_id"].to_pylist() if i is not None}
    texts = _Texts(
        read_text(config.system, "second_system"),
        read_text(config.answer_rule, "second_rule"),
        read_text(config.final_rule, "final_rule"),
    )
    key = _key(config, texts, join(place, TABLE), pool)
    with claim(out, "judge scienceqa"):
        refuse_other(join(out, REPORT), key)
        items = [(r, a, r.sample_id in unasked) for r, a in zip(records, answers, strict=True)]
        outcomes, report = _asked(config, out, items, texts, progress)
        report.key = key
        name = f"{run} with {config.endpoint.model}, {config.scheme}"
        _write(out, (name, Clusters(pool.image_root)), records, answers, outcomes)
        report.reasons = dict(Counter(o.reason for o in outcomes if o.reason))
        Usage(report.rows - sum(report.reasons.values()), report.reasons, join(out, OUTCOMES_TABLE)).check(
            "judge", config.max_refused
        )
        _summarise(report, records, answers, outcomes)
        write_json(join(out, REPORT), asdict(report))
    return report


def _answered(place: str, pool: Pool) -> tuple[str, list[Record], list[str]]:
    """Return an evaluation's run, its questions and its answers."""
    path = join(place, TABLE)
    table = read_rows(path, EVALS)
    names = sorted(table["benchmark"].unique().to_pylist())
    if names != [ScienceQA.name]:
        raise InputError(f"{path!r} is of {', '.join(names) or 'nothing'}; the schemes are for {ScienceQA.name} alone.")
    samples = table["sample"].to_pylist()
    known = {str(i) for i in pool.ids().tolist()}
    if lost := [s for s in samples if s not in known]:
        raise InputError(
            f"{pool.root!r} lacks {len(lost)} of {len(samples)} answered questions, first {lost[0]}: --pool."
        )
    return table["run"][0].as_py(), pool.take(np.array(samples, np.uint64)), table["answer"].to_pylist()


def _asked(
    config: SchemeConfig,
    out: str,
    items: Sequence[tuple[Record, str, bool]],
    texts: _Texts,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Outcome], SchemeReport]:
    """Return an outcome for each question (record, answer, whether it was refused), and a report of what that took."""
    cache = Cache(join(out, CACHE))
    cache.take_over()
    client = Client(config.endpoint, cache)
    sampling = RemoteSampling(max_tokens=config.max_tokens, temperature=config.temperature)
    tell = progress or (lambda done, total: None)

    def say(text: str) -> str:
        try:
            return text_of(ask(client, [Message("system", texts.system), Message("user", text)], sampling))
        except RefusedError as error:
            # what the language model would not say is no answer; what never came is none either, but nobody's
            if error.reason in FAILURES:
                raise
            return ""

    def work(item: tuple[Record, str, bool]) -> Outcome:
        record, answer, unasked = item
        if unasked:
            return Outcome(None, None, "", None, None, unasked=True)
        try:
            choices = count_choices(record)
        except InputError:  # it could not be asked of the model either
            return Outcome(None, None, "", None, None, "unscorable")
        model, second = scienceqa_letter(answer, choices), ""
        try:
            second = say(_question(record, texts.answer_rule))
            final = partial(_both, record, answer, second, texts.final_rule)
            return settled(config.scheme, model, second, choices, lambda: say(final()))
        except RefusedError as error:
            return Outcome(model, scienceqa_letter(second, choices), second, None, None, error.reason)

    try:
        outcomes = in_threads(work, items, config.endpoint.concurrency, lambda done: tell(done, len(items)))
        paid = {"requests": client.counts["requests"], "cost": cache.spent(), "under_way": cache.killed()}
        report = SchemeReport(join(out, TABLE), len(items), **paid)
        return outcomes, report
    finally:
        client.close()
        cache.close()


def _parts(record: Record) -> list[str]:
    text = record.conversations[0]["value"].replace(IMAGE, "").strip()
    return [f"[Question]\n{text}", *([_UNSEEN] if record.images else [])]


def _question(record: Record, rule: str) -> str:
    """Return what the language model is asked first: the question's text, and that there is a picture where one is."""
    return "\n\n".join([*_parts(record), f"[System]\n{rule}"])


def _both(record: Record, answer: str, second: str, rule: str) -> str:
    """Return what it is asked where the two differ: the question and both answers, whole, as they were said."""
    said = [
        f"[Answer {number}]\n{text.strip() or _NO_ANSWER}\n\n[End of Answer {number}]"
        for number, text in ((1, answer), (2, second))
    ]
    return "\n\n".join([*_parts(record), *said, f"[System]\n{rule}"])


def _write(
    out: str, whose: tuple[str, Clusters], records: list[Record], answers: list[str], outcomes: list[Outcome]
) -> None:
    run, clusters = whose
    rows = [
        {
            "run": run,
            "task": record.task,
            "sample": str(record.sample_id),
            "cluster": clusters.of(record),
            "reference": reference(record),
            "model_answer": answer,
            "model_letter": o.model,
            "second_answer": o.second_answer,
            "second_letter": o.second,
            "judged": o.judged,
            "letter": o.letter,
            "reason": o.reason,
        }
        for record, answer, o in zip(records, answers, outcomes, strict=True)
    ]
    write_rows(join(out, OUTCOMES_TABLE), pa.Table.from_pylist(rows, OUTCOMES), OUTCOMES)
    letters = [o.letter or "" for o in outcomes]
    scores = _scores(records, letters)
    write_rows(join(out, TABLE), evals_of(run, ScienceQA.name, records, letters, scores, clusters), EVALS)


def _summarise(report: SchemeReport, records: list[Record], answers: list[str], outcomes: list[Outcome]) -> None:
    """Fill a report's figures in."""
    sides = {
        "combined": [o.letter or "" for o in outcomes],
        "model": [o.model or "" for o in outcomes],
        "second": [o.second or "" for o in outcomes],
    }
    scores = {name: _scores(records, letters) for name, letters in sides.items()}
    report.combined, report.model, report.second = (
        asdict(ScienceQA().aggregate([Answered(*row) for row in zip(records, sides[n], scores[n], strict=True)]))
        for n in ("combined", "model", "second")
    )
    report.either = float(np.mean(np.maximum(scores["model"], scores["second"])))
    report.counts = counted(outcomes)


def _scores(records: list[Record], letters: list[str]) -> list[float]:
    return [
        float(bool(letter) and letter == reference(record).strip())
        for letter, record in zip(letters, records, strict=True)
    ]


def _key(config: SchemeConfig, texts: _Texts, table: str, pool: Pool) -> dict[str, Any]:
    """Return what the letters follow from; files by their content, the endpoint by its model's name."""
    asked = {"judge": config.endpoint.model, "extra": json_text(config.endpoint.extra), "scheme": config.scheme}
    drawn = {"temperature": config.temperature, "max_tokens": config.max_tokens}
    files = {"answers": sha256(read_bytes(table)).hexdigest()[:16], "pool": pool.digest}
    return asked | drawn | files | {n: sha256(t.encode()).hexdigest()[:16] for n, t in vars(texts).items()}
