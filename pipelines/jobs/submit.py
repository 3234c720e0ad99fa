"""`vinnow submit`: a run as a Ray job, which goes on whatever becomes of the machine that it was sent from."""

import asyncio
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...store.errors import InputError, VinnowError
from ..progress import plain
from .client import ENDED, OUT, asking, connect, jobs_of, next_id
from .parcel import RUN, pack, pack_code, variables

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# s between looks whether a job has ended; how long a cluster that does not answer is asked again
_LOOK, _PATIENCE = 1.0, 600.0


@dataclass(frozen=True)
class Submission:
    """What is asked for: a run's file, its `--set`s and `--gpus`, whether the code goes along, variables by name."""

    run: str
    sets: tuple[str, ...] = ()
    gpus: str = "auto"
    code: bool = False
    env: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submitted:
    """A job that the cluster has taken. `here`: places of its run that are on this machine too."""

    job: str
    out: str
    here: tuple[str, ...]


def submit(wanted: Submission, url: str) -> Submitted:
    """Send a run to the cluster of a job API, and return at once.

    Raises:
        InputError: the run is refused, a place in it is relative, nobody answers, or a job of this run is under way.
    """
    exported = variables(wanted.env)
    with tempfile.TemporaryDirectory(prefix="vinnow-job-") as folder:
        work = os.path.join(folder, "job")
        os.mkdir(work)
        parcel = pack(wanted.run, list(wanted.sets), work)
        client = connect(url)
        with asking(url):
            before = jobs_of(client, parcel.out)
        running = [j.submission_id for j in before if str(j.status.value) not in ENDED]
        if running:
            raise InputError(_busy(parcel.out, str(running[-1]), url))
        environment: dict[str, Any] = {"working_dir": work}
        if wanted.code:
            environment["py_modules"] = [pack_code(folder)]
        if exported:
            environment["env_vars"] = exported
        name = next_id(parcel.out, before)
        command = ["python", "-m", "vinnow", "run", RUN, "--gpus", wanted.gpus]
        try:
            with asking(url):
                client.submit_job(
                    entrypoint=shlex.join(command),
                    submission_id=name,
                    runtime_env=environment,
                    metadata={OUT: parcel.out},
                )
        except VinnowError as error:
            if "already exists" not in str(error):
                raise
            raise InputError(_busy(parcel.out, name, url)) from error
    return Submitted(name, parcel.out, parcel.here)


def follow(job: str, url: str, write: Callable[[str], None] | None = None) -> None:
    """Print what a job says until it has ended; a connection that breaks is made again.

    Raises:
        VinnowError: it failed or was stopped, or the cluster has not answered for ten minutes.
    """
    client, said, since = connect(url), 0, time.monotonic()
    tell = write or _write
    while True:
        try:
            said = asyncio.run(_tail(client, job, said, tell))
            status = str(client.get_job_status(job).value)
            since = time.monotonic()
        except (TimeoutError, OSError, RuntimeError) as error:
            if time.monotonic() - since > _PATIENCE:
                raise VinnowError(
                    f"{url} has not answered for {_PATIENCE:.0f} s; job {job} may go on: {look_again(job, url)}"
                ) from error
            status = ""
        if status in ENDED:
            break
        time.sleep(_LOOK)
    rest = client.get_job_logs(job)[said:]
    if rest:
        tell(rest)
    if status != "SUCCEEDED":
        info = client.get_job_info(job)
        code = "" if info.driver_exit_code is None else f" with exit code {info.driver_exit_code}"
        raise VinnowError(f"job {job} {status.lower()}{code}. The same submit again goes on with what is finished.")


def look_again(job: str, url: str) -> str:
    """Return the commands that show a job later."""
    return f"`vinnow status {job} --address {url}` shows it, `ray job stop {job} --address {url}` ends it."


async def _tail(client: "JobSubmissionClient", job: str, skip: int, tell: Callable[[str], None]) -> int:
    """Print a job's log behind its first `skip` characters, as it comes; return how many there are then."""
    seen = 0
    async for text in client.tail_job_logs(job):
        if seen + len(text) > skip:
            tell(text[max(0, skip - seen) :])
        seen += len(text)
    return max(seen, skip)


def _write(text: str) -> None:
    sys.stdout.write("".join(c if c in "\r\x1b" else plain(c) for c in text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _busy(out: str, job: str, url: str) -> str:
    return f"job {job} does {out} already. {look_again(job, url)}"
