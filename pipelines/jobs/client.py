"""A cluster's job API: where it is, who may ask, what it holds of a run. Over HTTP, by Ray's own client."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...store.errors import InputError, VinnowError, one_line
from ...store.files import digest

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT = "http://127.0.0.1:8265"
# in a job's metadata: the folder of its run
OUT = "vinnow_out"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def address_of(address: str | None) -> str:
    """Return the URL of the job API: the one given, RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or Ray's usual one here.

    Raises:
        InputError: it is no URL of HTTP.
    """
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    said = [("--address", address), *((n, os.environ.get(n)) for n in names), ("", DEFAULT)]
    name, url = next((n, v) for n, v in said if v)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"{name} {url!r} is no URL of a cluster's job API, as {DEFAULT} is (of `ray dashboard cluster.yaml`)."
        )
    if parts.password or parts.username:
        raise InputError(f"{name}: a URL with a password stands in logs. The token comes from ~/.ray/auth_token.")
    return url.rstrip("/")


def in_the_clear(url: str) -> bool:
    """Say whether a token would travel to this URL readable for others."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")


def connect(url: str) -> "JobSubmissionClient":
    """Return the client of a job API; it sends the token of ~/.ray/auth_token, unless RAY_AUTH_MODE says otherwise.

    Raises:
        InputError: nobody answers there, or not to this token.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import logging

    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)  # of each upload and each connection it would say a line
    # else Ray's client would go where this says, past the address that it is given
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    with asking(url):
        return JobSubmissionClient(url)


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Turn what Ray's client raises into a line of ours. Raises: InputError, VinnowError."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise InputError(
            f"{url} does not take this token, or there is none (RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}). It is that "
            "of ~/.ray/auth_token, or of the file that RAY_AUTH_TOKEN_PATH names, as the cluster had it at its start."
        ) from error
    except (ConnectionError, OSError) as error:
        raise InputError(
            f"no cluster's job API answers at {url}. Start it, or forward it: `ray dashboard cluster.yaml`."
        ) from error
    except RuntimeError as error:
        raise VinnowError(f"{url}: {one_line(error)}") from error


def jobs_of(client: "JobSubmissionClient", out: str) -> "list[JobDetails]":
    """Return the jobs of a run, oldest first."""
    jobs = [j for j in client.list_jobs() if j.submission_id and (j.metadata or {}).get(OUT) == out]
    return sorted(jobs, key=lambda j: j.start_time or 0)


def next_id(out: str, jobs: "list[JobDetails]") -> str:
    """Return what the next job of a run is called: two who submit at one time give it the same name, and one is refused."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", os.path.basename(out.rstrip("/"))).strip("-")[:40]
    numbers = [int(m[1]) for j in jobs if (m := re.search(r"-(\d+)$", j.submission_id or ""))]
    return f"vinnow-{name}-{digest(out, size=4)}-{max(numbers, default=0) + 1}"


def details(client: "JobSubmissionClient", job: str) -> "JobDetails | None":
    """Return a job by its id; None where the cluster knows none."""
    return next((j for j in client.list_jobs() if job in (j.submission_id, j.job_id)), None)


def wait_until_ended(client: "JobSubmissionClient", job: str, seconds: float) -> str:
    """Return a job's status once it has ended.

    Raises:
        VinnowError: it has not, after so long.
    """
    deadline = time.monotonic() + seconds
    while (status := str(client.get_job_status(job).value)) not in ENDED:
        if time.monotonic() > deadline:
            raise VinnowError(f"job {job} has not ended after {seconds:.0f} s: it is {status}.")
        time.sleep(0.5)
    return status


def as_dict(job: "JobDetails") -> dict[str, Any]:
    """Return what is shown of a job; its environment is not."""
    start, end = ((t or 0) / 1000 for t in (job.start_time, job.end_time))
    return {
        "job": job.submission_id or job.job_id,
        "status": str(getattr(job.status, "value", job.status)),
        "out": (job.metadata or {}).get(OUT),
        "seconds": round((end or time.time()) - start, 1) if start else None,
        "message": job.message,
    }
