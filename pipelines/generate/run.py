"""Generating instruction data: prompts to an endpoint, its answers to records that `vinnow ingest` reads.

The work is threads of this process, not actors of a cluster. It is waiting: an answer takes seconds and costs this side
next to nothing, and what limits it (requests and tokens per minute, money, one cache of paid answers) is one thing for the
whole job, which actors on several nodes would have to share through yet another service. Threads keep any endpoint busy.

All that is paid for lies in `OUT/answers.sqlite` first; records are made of that. So a run that was killed goes on, and one
with other checks pays nothing.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from ...evaluate.remote.cache import Cache
from ...evaluate.remote.client import Client, DownError, RowError
from ...evaluate.remote.limits import BudgetError, EndedError
from ...evaluate.remote.reply import REFUSALS, body_of, most_tokens, request_key
from ...store.claim import claim
from ...store.errors import InputError, VinnowError
from ...store.files import exists, join, open_fs, read_json, write_bytes, write_json, write_parquet
from ...store.reading import with_fields
from ...store.usage import Usage
from .answers import REASONS, AnswerError, check, turns_of
from .config import GenerateConfig, Kind
from .drawing import Job, draw
from .prompts import Prompts, load_prompts, reads_boxes
from .subjects import Subjects, read_subjects

RECORDS, REFUSED, ANSWERS, REPORT = "records.json", "refused.parquet", "answers.sqlite", "generate.json"
# a prompt that became no record; `text`: what the model said, "" where it said nothing
REFUSED_SCHEMA = pa.schema(
    [pa.field(n, pa.string(), nullable=False) for n in ("image", "kind", "reason", "detail", "text")]
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one prompt: a record, or a reason and what the model said."""

    record: dict[str, Any] | None
    reason: str = ""
    detail: str = ""
    text: str = ""


@dataclass
class GenerateReport:
    """What was generated. `kinds`: records by kind; `told`: what of the source was not used; `paid`: the client's counts.

    `spent`: money, over all runs; `under_way`: requests that were under way at kills, over all runs, each of which counts
    as paid; `left_under_way`: those of them that had no answer yet when this run began.
    """

    records: str
    refused: str
    kinds: dict[str, int]
    reasons: dict[str, int]
    told: dict[str, int]
    paid: dict[str, int] = field(default_factory=dict)
    spent: float = 0.0
    under_way: int = 0
    left_under_way: int = 0

    def usage(self) -> Usage:
        """Return what became of the prompts."""
        return Usage(sum(self.kinds.values()), self.reasons, self.refused)


@dataclass(frozen=True)
class Foreseen:
    """What a job comes to: prompts by kind, those whose answer is there, tokens and money of the others at most."""

    kinds: dict[str, int]
    answered: int
    tokens: int
    cost: float
    told: dict[str, int]
    example: str


class Work:
    """A job as it is drawn: what each picture is asked, and with which words."""

    def __init__(self, config: GenerateConfig) -> None:
        """Read the source and the prompts. Raises: InputError: as `read_subjects`, `load_prompts`."""
        shares = config.shares()
        self.config, self.subjects = config, self._read(config, list(shares))
        self.prompts = load_prompts(config.prompts, list(shares))
        self.jobs = draw(self.subjects.pictures, shares, config.seed, config.limit)

    @staticmethod
    def _read(config: GenerateConfig, kinds: list[Kind]) -> Subjects:
        subjects = read_subjects(config.source, config.instances)
        wanting = [kind for kind in kinds if reads_boxes(kind)]
        if wanting and not any(s.boxes for s in subjects.pictures):
            raise InputError(
                f"{wanting[0]} shows the model boxes, and there are none: give COCO's instances JSON (--instances), or a "
                "table with a column `boxes`."
            )
        return subjects

    def prompt_of(self, job: Job) -> Prompts:
        """Return the prompts of a job's kind."""
        return self.prompts[job.kind]

    def told(self) -> dict[str, int]:
        """Return what of the source was not used, by what it is."""
        boxes = [len(j.subject.boxes) - self.config.max_boxes for j in self.jobs if reads_boxes(j.kind)]
        return dict(self.subjects.told) | ({"boxes over max_boxes": n} if (n := sum(b for b in boxes if b > 0)) else {})

    def record(self, job: Job, text: str) -> dict[str, Any]:
        """Return a record in LLaVA's keys. Raises: AnswerError."""
        question = self.prompt_of(job).question(self.config.seed, job.subject.image) if job.kind == "detail" else ""
        turns = turns_of(job.kind, text, question)
        check(turns, self.config.words.get(job.kind))
        values = [value for turn in turns for value in turn]
        values[0] = f"<image>\n{values[0]}"
        roles = ("human", "gpt")
        return {
            "id": os.path.splitext(os.path.basename(job.subject.image))[0],
            "image": self.config.image_prefix + job.subject.image,
            "task": job.kind,
            "conversations": [{"from": roles[i % 2], "value": value} for i, value in enumerate(values)],
        }

    def outcome(self, job: Job, client: Client) -> Outcome:
        """Ask, and make a record of the answer. Raises: what ends the job."""
        if job.subject.fault is not None:
            return Outcome(None, "bad_subject", job.subject.fault)
        if not job.subject.captions:
            return Outcome(None, "no_captions", REASONS["no_captions"])
        messages = self.prompt_of(job).messages(job.subject, self.config.max_boxes)
        try:
            reply = client.chat(messages, self.config.sampling)
        except RowError as error:
            return Outcome(None, error.reason, str(error))
        if reply.refused is not None:
            return Outcome(None, reply.refused, REFUSALS[reply.refused], reply.text)
        try:
            return Outcome(self.record(job, reply.text))
        except AnswerError as error:
            return Outcome(None, error.reason, str(error), reply.text)


def generate(config: GenerateConfig, out: str, progress: Progress | None = None) -> GenerateReport:
    """Write `OUT/records.json` (LLaVA's format), `refused.parquet` (reasons and raw texts) and `generate.json` (counts).

    A job that stopped goes on; what was answered is not paid again.

    Raises:
        InputError: the source or a prompt cannot be read, the endpoint cannot be used, `limit` is for fewer prompts than
            OUT has records of, or more than `max_refused` was refused (the records are then not written).
        VinnowError: the cap of money was reached, or the endpoint is down; says how many prompts are left.
    """
    work = Work(config)
    with claim(out, "generate", inputs=[config.source, config.instances, config.prompts]):
        _refuse_fewer(work, out)
        cache = Cache(join(out, ANSWERS))
        left = cache.take_over()
        client = Client(config.endpoint, cache)
        try:
            outcomes = _ask_all(work, client, progress)
            return _write(work, outcomes, client, left, out)
        finally:
            client.close()
            cache.close()


def foresee(config: GenerateConfig, out: str) -> Foreseen:
    """Return what a job would come to, without asking anyone. Raises: as `generate` before it asks."""
    work, endpoint = Work(config), config.endpoint
    _refuse_fewer(work, out)
    cache = Cache(join(out, ANSWERS)) if exists(join(out, ANSWERS)) else None
    answered, tokens, cost, example = 0, 0, 0.0, ""
    for job in work.jobs:
        if job.subject.fault is not None or not job.subject.captions:
            continue
        messages = work.prompt_of(job).messages(job.subject, config.max_boxes)
        example = example or "\n\n".join(f"[{m.role}]\n{m.text}" for m in messages)
        if cache is not None and cache.get(request_key(body_of(endpoint, messages, config.sampling))) is not None:
            answered += 1
            continue
        prompt = most_tokens(endpoint, messages)
        tokens += prompt + config.sampling.max_tokens
        cost += endpoint.cost(prompt, config.sampling.max_tokens)
    if cache is not None:
        cache.close()
    return Foreseen(dict(Counter(j.kind for j in work.jobs)), answered, tokens, cost, work.told(), example)


def _refuse_fewer(work: Work, out: str) -> None:
    """Refuse a limit under which records that are there would be left out."""
    if work.config.limit is None or not exists(join(out, RECORDS)) or not exists(path := join(out, REPORT)):
        return
    counts = dict[str, int]
    kinds = {"kinds": counts, "reasons": counts}
    before = with_fields(read_json(path), kinds, path, "report of vinnow generate", f"Delete it and {RECORDS}.")
    prompts = sum(before["kinds"].values()) + sum(before["reasons"].values())
    if len(work.jobs) < prompts:
        raise InputError(
            f"limit={work.config.limit} is for fewer than the {prompts:,} prompts that {out!r} has {RECORDS} of: give "
            f"limit={prompts} or more, another --out, or delete {RECORDS} (the answers stay in {ANSWERS})."
        )


def _ask_all(work: Work, client: Client, progress: Progress | None) -> list[Outcome]:
    """Return what became of each job, in their order; as many threads as requests may be under way."""
    outcomes: list[Outcome | None] = [None] * len(work.jobs)
    numbers, lock, done = iter(range(len(work.jobs))), threading.Lock(), Counter[str]()

    def ask() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            outcomes[number] = work.outcome(work.jobs[number], client)
            with lock:
                done["prompts"] += 1

    with ThreadPoolExecutor(client.config.concurrency, thread_name_prefix="asking") as threads:
        asked = [threads.submit(ask) for _ in range(min(client.config.concurrency, len(work.jobs)))]
        try:
            waiting = set(asked)
            while waiting:
                ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
                if progress is not None:
                    progress(done["prompts"], len(work.jobs))
                for future in ended:
                    future.result()
        except BaseException:  # Ctrl-C, too: what is under way is kept, and nothing else is asked
            with lock:
                numbers = iter(())
            client.limits.end()
            client.purse.end()
            wait(asked, timeout=client.config.timeout_s)
            _say_left(client.ended_by(), outcomes)
            raise
    return [o for o in outcomes if o is not None]


def _say_left(error: VinnowError | None, outcomes: list[Outcome | None]) -> None:
    """Raise what ended the job with a word on what is left to do."""
    if isinstance(error, (BudgetError, DownError, EndedError)):
        left = sum(o is None for o in outcomes)
        raise type(error)(f"{left:,} of {len(outcomes):,} prompts are left. {error}") from error


def _write(work: Work, outcomes: list[Outcome], client: Client, left: int, out: str) -> GenerateReport:
    jobs = list(zip(work.jobs, outcomes, strict=True))
    lost = [(j.subject.image, j.kind, o.reason, o.detail, _storable(o.text)) for j, o in jobs if o.record is None]
    columns = [pa.array([row[i] for row in lost], pa.string()) for i in range(len(REFUSED_SCHEMA))]
    write_parquet(join(out, REFUSED), pa.Table.from_arrays(columns, schema=REFUSED_SCHEMA))
    report = GenerateReport(
        join(out, RECORDS),
        join(out, REFUSED),
        dict(Counter(j.kind for j, o in jobs if o.record is not None)),
        dict(Counter(o.reason for _, o in jobs if o.record is None)),
        work.told(),
        dict(client.counts),
        client.purse.spent,
        client.cache.killed(),
        left,
    )
    try:
        report.usage().check("generate", work.config.max_refused)
    except InputError:
        _drop(join(out, RECORDS))  # of an earlier run with other settings
        raise
    records = [json.dumps(o.record, ensure_ascii=False) for o in outcomes if o.record is not None]
    write_bytes(join(out, RECORDS), ("[\n" + ",\n".join(records) + "\n]\n").encode())
    write_json(join(out, REPORT), {"config": work.config.model_dump(mode="json")} | asdict(report))
    return report


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _drop(path: str) -> None:
    if exists(path):
        fs, inner = open_fs(path)
        fs.delete_file(inner)
