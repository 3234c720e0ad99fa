"""Runs that Weights & Biases keeps offline, read from its files."""

import json
from pathlib import Path


def kept_runs(out):
    """Return the runs of a sweep by name, and the names of the files whose run is in none of them."""
    files = sorted(Path(out, "wandb").glob("offline-run-*/*.wandb"))
    runs = [(path.name, read_wandb(path)) for path in files]
    whole = {file for file, run in runs if "name" in run}
    return {run["name"]: run for _, run in runs if "name" in run}, {file for file, _ in runs} - whole


def read_wandb(path):
    """Return a run of W&B's offline file: LevelDB's log format, a protobuf a record."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole, run = path.read_bytes(), 7, b"", {"history": []}
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # a block's end holds no head
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind not in (1, 4):  # whole, or the last of several
            continue
        record, whole = Record.FromString(whole), b""
        if record.WhichOneof("record_type") == "run":
            said = record.run
            run |= {"name": said.display_name, "project": said.project, "group": said.run_group}
            run["config"] = {i.key: json.loads(i.value_json) for i in said.config.update}
        elif record.WhichOneof("record_type") == "history":
            items = record.history.item
            run["history"].append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return run
