"""Putting the board where Grafana finds it: a folder of the user's, or the one from which Ray's own boards are loaded."""

import os
from pathlib import Path

from ...actors.surroundings import session_root
from ...store.errors import InputError
from ...store.facts import read_fields
from ...store.files import write_bytes
from .grafana import FILE, UID

NAME = "vinnow_grafana_dashboard.json"


def ray_folder() -> str:
    """Return the folder of Ray's own boards: of the session that began last, unless Ray's own variables name another.

    Raises:
        InputError: there is none.
    """
    root = os.environ.get("RAY_METRICS_OUTPUT_ROOT") or os.path.join(session_root(), "session_latest", "metrics")
    folder = os.environ.get("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR") or os.path.join(root, "grafana", "dashboards")
    if not os.path.isdir(folder):
        raise InputError(
            f"there are no boards of Ray's in {folder!r}: a Ray with its dashboard writes them when it starts, on the head "
            "node. Start one first, or name a folder with --out."
        )
    return folder


def install_board(folder: str) -> str:
    """Write the board into a folder, over an older one of ours; return its path.

    Raises:
        InputError: something else lies in its place.
    """
    path = os.path.join(folder, NAME)
    if os.path.exists(path):
        way_out = f"Delete it, or name another folder: {NAME} is not ours there."
        if read_fields(path, "board of vinnow", way_out, uid=str)["uid"] != UID:
            raise InputError(f"{path!r} is a board of somebody else's. {way_out}")
    write_bytes(path, Path(FILE).read_bytes())
    return path
