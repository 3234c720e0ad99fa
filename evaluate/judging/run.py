"""Answers and a judge → JUDGED and relative scores, as LLaVA-Bench-in-the-Wild has them.

Each question is judged in both orders, and its scores are the means over them; one that lacks a score in either order is
listed and counts for nobody. A judge whose text has no scores is asked again, a few times, each with a seed of its own: the
same request would get the same text, out of the cache if not from the judge. `compat: official` is the released script's
way instead. Every text of the judge is in `OUT/asked.sqlite` before it counts, so a run that was cut off, or is done again,
pays for nothing twice.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from ...pool.refusals import RefusedError
from ...store.claim import check_out, claim
from ...store.errors import InputError
from ...store.files import join, json_text, read_bytes, write_json
from ...store.tables import JUDGED, write_rows
from ...store.usage import Usage
from ..remote.asking import ask, in_threads
from ..remote.cache import Cache
from ..remote.client import Client
from ..remote.config import RemoteSampling
from ..remote.reply import FAILURES
from .config import OFFICIAL_TEMPERATURE, JudgeConfig
from .parse import official_scores, scores_of
from .prompt import MODEL_FIRST, REFERENCE_FIRST, by_side, messages_of, read_text
from .questions import CONTEXTS, QUESTIONS, REFERENCES, OpenQuestion, read_answers, read_questions
from .relative import ALL, relative_scores
from .same import refuse_other

TABLE, REPORT, CACHE = "judged.parquet", "judged.json", "asked.sqlite"
# what has no scores, beside what an endpoint's answer is refused for
UNANSWERED, UNREAD = "unanswered", "unread_scores"
# a judge's text that is none, whatever stands on its first line
_HELD_BACK = {"content_filter", "declined"}
# where another draw may have scores
_AGAIN = {UNREAD, "empty_answer", "cut_by_length"}


@dataclass
class JudgeReport:
    """`scores`: of each category and `all`, see `RelativeScore.plain`; `by_order`: that of all, in each order.

    `questions` that were asked about; `failed` of them have no scores, by `reasons`: they count for nobody, in the official
    way as −1 for both. `cost`: of all that is in the folder, in the endpoint's money; `requests` were sent by this call;
    `under_way`: were at kills, so that they may have been paid twice. `asked_again`: texts without scores after which the
    judge was asked once more, in this judgement, be it now or before.
    """

    path: str
    questions: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_order: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    cost: float = 0.0
    under_way: int = 0
    asked_again: int = 0
    key: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pair:
    """One question and one order of its two answers; `answer` is None where the model has none."""

    question: OpenQuestion
    answer: str | None
    order: str


def judge(config: JudgeConfig, out: str, progress: Callable[[int, int], None] | None = None) -> JudgeReport:
    """Have answers judged; write `OUT/judged.parquet` and `OUT/judged.json`, and return what the latter says.

    Raises:
        KeyMismatchError: `out` holds another judgement; lists what differs.
        EndpointError, DownError, BudgetError: the endpoint cannot be used, is down, or the cap of money is reached.
        InputError: files that do not fit; too many questions without scores; in the official way, a question without an
            answer or without any text of the judge, which has no −1 there.
    """
    out = out if "://" in out else os.path.abspath(out)
    check_out(out, [config.answers, config.files, config.rule, config.system])
    questions = read_questions(config.files)
    answers = read_answers(config.answers, {q.question_id: q for q in questions})
    system, rule = read_text(config.system, "system"), read_text(config.rule, "rule")
    if config.compat and (lacking := [q.question_id for q in questions if q.question_id not in answers]):
        raise InputError(
            f"{config.answers!r} lacks {len(lacking)} answers, first to question {lacking[0]}: the official way has no "
            "place for them. Answer them, or leave --compat out."
        )
    key = _key(config, system, rule)
    orders = (REFERENCE_FIRST,) if config.compat else (REFERENCE_FIRST, MODEL_FIRST)
    pairs = [_Pair(q, answers.get(q.question_id), order) for q in questions for order in orders]
    with claim(out, "judge"):
        refuse_other(join(out, REPORT), key)
        rows, report = _asked(config, out, pairs, (system, rule), progress)
        report.key = key
        name = os.path.basename(config.answers)
        table = pa.Table.from_pylist([row | {"run": name} for row in rows], JUDGED)
        write_rows(report.path, table, JUDGED)
        _summarise(config, rows, report)
        write_json(join(out, REPORT), vars(report))
    return report


def _asked(
    config: JudgeConfig,
    out: str,
    pairs: list[_Pair],
    texts: tuple[str, str],
    progress: Callable[[int, int], None] | None,
) -> tuple[list[dict[str, Any]], JudgeReport]:
    """Return a row of JUDGED for each pair, but for `run`, and a report of what that took."""
    cache = Cache(join(out, CACHE))
    cache.take_over()
    client = Client(config.endpoint, cache)
    tell = progress or (lambda done, total: None)

    def work(pair: _Pair) -> tuple[dict[str, Any], int]:
        asks, verdict = _first_scores(client, config, pair, texts)
        return _row(pair, *verdict), asks - 1

    try:
        judged = in_threads(work, pairs, config.endpoint.concurrency, lambda done: tell(done, len(pairs)))
        rows, again = [row for row, _ in judged], sum(asks for _, asks in judged)
        paid = {"requests": client.counts["requests"], "cost": cache.spent(), "under_way": cache.killed()}
        return rows, JudgeReport(join(out, TABLE), asked_again=again, **paid)
    finally:
        client.close()
        cache.close()


_Verdict = tuple[tuple[float, float] | None, str | None, str]


def _first_scores(client: Client, config: JudgeConfig, pair: _Pair, texts: tuple[str, str]) -> tuple[int, _Verdict]:
    """Return how often the judge was asked, and its first verdict with scores; its first one if none has any."""
    official = config.compat is not None
    sampling = RemoteSampling(max_tokens=config.max_tokens, temperature=config.heat)
    first = _verdict(client, sampling, pair, texts, official)
    if official or first[0] is not None or first[1] not in _AGAIN:
        return 1, first
    for seed in range(1, config.max_asks):
        another = sampling.model_copy(update={"seed": seed, "temperature": max(config.heat, OFFICIAL_TEMPERATURE)})
        if (verdict := _verdict(client, another, pair, texts, official))[0] is not None:
            return seed + 1, verdict
    return config.max_asks, first


def _verdict(client: Client, sampling: RemoteSampling, pair: _Pair, texts: tuple[str, str], official: bool) -> _Verdict:
    """Return (the model's and the reference's scores, why there are none, the judge's text)."""
    if pair.answer is None:
        return None, UNANSWERED, ""
    try:
        reply = ask(client, messages_of(pair.question, pair.answer, pair.order, *texts), sampling)
    except RefusedError as error:
        return None, error.reason, str(error)
    text = reply.text.encode(errors="replace").decode()
    if official:
        scores = official_scores(reply.text)
    else:
        scores = None if reply.refused in _HELD_BACK else scores_of(reply.text)
    if scores is None:
        return None, reply.refused or UNREAD, text
    return by_side(scores, pair.order), None, text


def _row(pair: _Pair, scores: tuple[float, float] | None, reason: str | None, text: str) -> dict[str, Any]:
    question = pair.question
    return {
        "task": question.category,
        "sample": question.question_id,
        "cluster": question.image,
        "order": pair.order,
        "score": scores[0] if scores else None,
        "reference_score": scores[1] if scores else None,
        "reason": reason,
        "answer": pair.answer or "",
        "reference": question.reference,
        "text": text,
    }


def _summarise(config: JudgeConfig, rows: list[dict[str, Any]], report: JudgeReport) -> None:
    """Fill a report's numbers in of the rows of JUDGED."""
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        rows_of.setdefault(row["sample"], []).append(row)
    why = {name: reason for name, some in rows_of.items() if (reason := next(filter(None, map(_why, some)), None))}
    report.questions, report.failed, report.reasons = len(rows_of), len(why), dict(Counter(why.values()))
    if config.compat is None:
        Usage(len(rows_of) - len(why), report.reasons, report.path).check("judge", config.max_refused)
        scored = [some for name, some in rows_of.items() if name not in why]
    else:
        if silent := [name for name, reason in why.items() if reason in FAILURES]:
            raise InputError(
                f"the judge said nothing at all of {len(silent)} questions, first {silent[0]} ({why[silent[0]]}): that is "
                "no −1 of the official way. Run again: what it said is not asked again."
            )
        scored = [[row | _NEITHER if row["reason"] else row for row in some] for some in rows_of.values()]
    report.scores = {name: s.plain() for name, s in _relative(scored, config.seed).items()}
    for number, order in enumerate([row["order"] for row in scored[0]]):
        alone = _relative([[some[number]] for some in scored], config.seed)
        report.by_order[order] = alone[ALL].relative.estimate


_NEITHER = {"score": -1.0, "reference_score": -1.0}


def _why(row: dict[str, Any]) -> str | None:
    return row["reason"]


def _relative(scored: list[list[dict[str, Any]]], seed: int) -> Any:
    means = [[np.mean([row[n] for row in some]) for n in ("score", "reference_score")] for some in scored]
    model_N, reference_N = np.array(means, np.float64).T
    category_N, picture_N = (np.array([some[0][n] for some in scored], object) for n in ("task", "cluster"))
    return relative_scores(model_N, reference_N, category_N, picture_N.astype(np.str_), seed)


def _key(config: JudgeConfig, system: str, rule: str) -> dict[str, Any]:
    """Return what scores follow from; files by their content, and the judge by its name, not by where it is."""
    files = [config.answers, *(join(config.files, n) for n in (QUESTIONS, REFERENCES, CONTEXTS))]
    digests = {os.path.basename(f): sha256(read_bytes(f)).hexdigest()[:16] for f in files[1:]}
    asked = {"judge": config.endpoint.model, "extra": json_text(config.endpoint.extra), "compat": config.compat}
    drawn = {"temperature": config.heat, "max_tokens": config.max_tokens, "seed": config.seed}
    texts = {n: sha256(t.encode()).hexdigest()[:16] for n, t in (("system", system), ("rule", rule))}
    return asked | drawn | texts | digests | {"answers": sha256(read_bytes(files[0])).hexdigest()[:16]}
