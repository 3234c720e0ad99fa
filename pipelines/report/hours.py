"""What the stages of a run held: GPU-hours and CPU-hours, of seconds that it recorded and devices that its config names.

The processes of ingest and select are not counted: Ray gives them nothing.
"""

from collections.abc import Sequence
from typing import Any

from ...store.manifest import StageRecord
from ..runs.stage import Held, Stage


def held(stages: Sequence[Stage], record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
    """Return what a stage held, in hours; None for one that Ray gave nothing. `results`: the sweep's trials."""
    stage = next((s for s in stages if s.name == record.name), None)
    return None if stage is None else stage.held(record, results)
