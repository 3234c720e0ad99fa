"""`vinnow status --address`: a job and its run, asked from a machine that sees neither its folder nor its disks."""

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...store.errors import InputError, VinnowError
from ..runs.stage import StageStatus
from .client import ENDED, OUT, as_dict, asking, connect, details, jobs_of, wait_until_ended

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# lines of a job's log that are shown; s that a question to the head may take
_LINES, _ANSWER_S = 10, 120.0
_MARK = "vinnow-status:"


@dataclass(frozen=True)
class Afar:
    """`job`: what is shown of it, or None where no job of the run is known; `said`: its last lines; its run's stages.

    `missing`: why there are no stages.
    """

    job: dict[str, Any] | None
    said: list[str]
    stages: list[StageStatus]
    missing: str = ""


def status_afar(name: str, url: str) -> Afar:
    """Return how a job, or the last job of a run's folder, stands, and the stages of its run.

    Raises:
        InputError: nobody answers, or the cluster knows neither a job nor a run of this name.
    """
    client = connect(url)
    with asking(url):
        last = details(client, name) or next(reversed(jobs_of(client, name)), None)
    out = (last.metadata or {}).get(OUT) if last else name
    job = as_dict(last) if last else None
    said: list[str] = []
    if job is not None:
        with asking(url):
            said = client.get_job_logs(job["job"]).replace("\xa0", " ").splitlines()[-_LINES:]
    if last is None and "/" not in name:
        raise InputError(f"{url} knows no job {name!r}. `ray job list --address {url}` lists them.")
    try:
        return Afar(job, said, [] if out is None else _stages(client, out, last, url))
    except InputError as error:
        if job is None:
            raise
        return Afar(job, said, [], str(error))


def _stages(client: "JobSubmissionClient", out: str, job: "JobDetails | None", url: str) -> list[StageStatus]:
    """Ask where the run's folder is seen: here if it is a URI that may be read here, else on the head, by a small job."""
    if "://" in out:
        from ..runs.status import status

        with suppress(InputError):
            return status(out)
    # with the package and the variables that the run's own job has
    brought = {k: v for k, v in ((job and job.runtime_env) or {}).items() if k in ("py_modules", "env_vars")}
    command = f"python -m vinnow status {shlex.quote(out)} --json"
    with asking(url):
        asked = client.submit_job(
            entrypoint=f"echo {_MARK} && {command}", metadata={"vinnow_asks": out}, runtime_env=brought
        )
        try:
            ended = wait_until_ended(client, asked, _ANSWER_S)
            text = client.get_job_logs(asked).rpartition(f"{_MARK}\n")[2]
        finally:
            _forget(client, asked)
    if ended != "SUCCEEDED":
        words = next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
        raise InputError(f"{out}: {words.removeprefix('error: ')}")
    try:
        return [StageStatus(**stage) for stage in json.loads(text[text.index("[") : text.rindex("]") + 1])]
    except (ValueError, TypeError) as error:
        raise VinnowError(f"{url}: the head answers otherwise than this version of vinnow would.") from error


def _forget(client: "JobSubmissionClient", asked: str) -> None:
    """Take a question out of the cluster's list of jobs."""
    if str(client.get_job_status(asked).value) not in ENDED:
        client.stop_job(asked)
        wait_until_ended(client, asked, 10)
    client.delete_job(asked)
