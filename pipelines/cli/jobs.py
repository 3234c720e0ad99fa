"""Runs on a cluster from afar: `submit`. `status --address` stands with the other commands of runs."""

from typing import Annotated

import typer

from ..progress import console, show
from .app import Gpus, RunFile, Sets, app

Address = Annotated[
    str | None,
    typer.Option(
        help="URL of the cluster's job API; left out: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or http://127.0.0.1:8265."
    ),
]


@app.command()
def submit(
    run: RunFile,
    address: Address = None,
    code: Annotated[bool, typer.Option("--code", help="Bring this package along, in place of the cluster's.")] = False,
    env: Annotated[
        list[str] | None, typer.Option(help="Name of a variable that the job gets as it is set here (repeatable).")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and end.")] = False,
    gpus: Gpus = "auto",
    sets: Sets = None,
) -> None:
    """A run as a job of a Ray cluster: its file travels there, its output comes back; Ctrl-C leaves it running.

    Exit code 1 when the job failed or was stopped. The same command again goes on with what is finished.
    """
    from ..jobs.client import address_of, in_the_clear
    from ..jobs.submit import Submission, follow, look_again
    from ..jobs.submit import submit as send
    from . import ending

    url = address_of(address)
    if in_the_clear(url):
        _say(f"warning: {url} is neither encrypted nor this machine: the token and the run travel readable for others")
    job = send(Submission(run, tuple(sets or ()), gpus, code, tuple(env or ())), url)
    if job.here:
        _say(f"on this machine too; all nodes of the cluster must see the same at these paths: {'; '.join(job.here)}")
    _say(f"job {job.job} of {job.out}: {look_again(job.job, url)}")
    if no_wait:
        show(job.job)
        return
    with ending.going_on(f"The job goes on: {look_again(job.job, url)}"):
        follow(job.job, url)


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
