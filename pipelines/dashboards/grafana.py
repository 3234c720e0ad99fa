"""The board as Grafana reads it, made of the list of panels: `python -m vinnow.pipelines.dashboards.grafana` rewrites it.

It asks whatever Prometheus Grafana has (`$datasource`, as Ray's own boards do), and shows the Ray sessions that are chosen.
Panels are `timeseries` and `stat`, which every Grafana since 8 has; Ray's own still are `graph`, which 12 has no more.
"""

import json
from pathlib import Path
from typing import Any

from .panels import ROWS, Panel, Query

FILE = Path(__file__).parent / "grafana" / "vinnow.json"
UID, TITLE = "vinnowRuns", "vinnow"
_WIDTH, _HEIGHT, _COLUMNS = 24, 8, 2
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def board() -> dict[str, Any]:
    """Return the board."""
    return {
        "uid": UID,
        "title": TITLE,
        "description": "Features, trainings and sweeps of vinnow while they run.",
        "tags": ["vinnow", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def written() -> str:
    """Return the board's file."""
    return json.dumps(board(), indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    sessions = 'label_values({__name__=~"ray_vinnow_.+"}, SessionName)'
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "hide": 2, "refresh": 1},
        {
            "name": "SessionName",
            "label": "Ray session",
            "type": "query",
            "datasource": _SOURCE,
            "definition": sessions,
            "query": {"query": sessions, "refId": "StandardVariableQuery"},
            "refresh": 2,
            "sort": 2,
            "hide": 0,
            "includeAll": True,
            "multi": False,
            "allValue": ".*",
            "current": {"selected": True, "text": "All", "value": "$__all"},
        },
    ]


def _panels() -> list[dict[str, Any]]:
    panels, top = list[dict[str, Any]](), 0
    for row in ROWS:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        title = {"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False}
        panels.append(title | {"gridPos": place, "panels": []})
        top += 1
        for number, panel in enumerate(row.panels):
            down, right = divmod(number, _COLUMNS)
            width = _WIDTH // _COLUMNS
            place = {"h": _HEIGHT, "w": width, "x": right * width, "y": top + down * _HEIGHT}
            panels.append(_panel(panel, len(panels) + 1) | {"gridPos": place})
        top += -(-len(row.panels) // _COLUMNS) * _HEIGHT
    return panels


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    stat = panel.kind == "stat"
    looks: dict[str, Any] = {"unit": panel.unit, "min": 0, "color": {"mode": "palette-classic"}}
    options: dict[str, Any] = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
    }
    if not stat:
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        looks["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 0,
            "showPoints": "auto",
            "stacking": stacking,
        }
        legend = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}
        options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": looks, "overrides": []},
        "options": options,
        "targets": [_target(query, "ABCD"[i]) for i, query in enumerate(panel.queries)],
    }


def _target(query: Query, letter: str) -> dict[str, Any]:
    return {
        "refId": letter,
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "range": True,
        "instant": False,
    }


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
