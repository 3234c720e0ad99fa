"""`vinnow dashboards`: the Grafana board."""

from typing import Annotated

import typer

from ...store.errors import InputError
from ..progress import show
from .app import app


@app.command()
def dashboards(
    out: Annotated[str | None, typer.Option(help="A folder that Grafana loads boards from.")] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Beside Ray's own boards, of the Ray session on this machine.")
    ] = False,
) -> None:
    """Write the Grafana board of running work: rows, tokens, actors, refused rows, trainings, trials.

    Example: `vinnow dashboards --install` on the head node, where Grafana reads Ray's boards already.
    """
    from ..dashboards.install import install_board, ray_folder

    if (out is None) == (not install):
        raise InputError("give --out DIR or --install, one of them.")
    show(install_board(ray_folder() if out is None else out))
