"""The Grafana board: made of one list, holds every meter, keeps to Grafana's schema, and lands where Grafana looks."""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.dashboards import grafana, install, panels
from vinnow.store import meters


def every_query():
    return [(panel, query) for row in panels.ROWS for panel in row.panels for query in panel.queries]


def test_the_file_is_the_list_s():
    assert grafana.FILE.read_text() == grafana.written(), "run: python -m vinnow.pipelines.dashboards.grafana"


def test_every_meter_is_on_the_board():
    text = " ".join(query.expr for _, query in every_query())
    assert [m.exported for m in meters.METERS if f"{m.exported}{{" not in text] == []


class Part(BaseModel):
    """Grafana's schema of what our board has (its kinds `dashboard`, `timeseries` and `stat`); nothing else is in it."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Source(Part):
    type: Literal["prometheus"]
    uid: Literal["${datasource}"]


class Place(Part):
    h: int = Field(gt=0)
    w: int = Field(gt=0, le=24)
    x: int = Field(ge=0, lt=24)
    y: int = Field(ge=0)


class Target(Part):
    refId: str = Field(pattern="^[A-Z]$")
    datasource: Source
    expr: str = Field(min_length=1)
    legendFormat: str
    range: bool
    instant: bool


class Stacking(Part):
    mode: Literal["none", "normal", "percent"]
    group: str


class Lines(Part):
    drawStyle: Literal["line", "bars", "points"]
    lineWidth: int = Field(ge=0, le=10)
    fillOpacity: int = Field(ge=0, le=100)
    showPoints: Literal["auto", "never", "always"]
    stacking: Stacking


class Color(Part):
    mode: Literal["palette-classic"]


class Defaults(Part):
    unit: Literal["rowsps", "short", "percentunit", "percent", "sci"]
    min: int
    color: Color
    custom: Lines | None = None


class FieldConfig(Part):
    defaults: Defaults
    overrides: list[dict]


class Drawn(Part):
    id: int
    type: Literal["timeseries", "stat"]
    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    datasource: Source
    gridPos: Place
    fieldConfig: FieldConfig
    options: dict
    targets: list[Target] = Field(min_length=1)


class Row(Part):
    id: int
    type: Literal["row"]
    title: str
    collapsed: bool
    gridPos: Place
    panels: list = Field(max_length=0)


class Templating(Part):
    list: list[dict]


class Time(Part):
    from_: str = Field(alias="from")
    to: str


class Board(Part):
    uid: str = Field(min_length=8, max_length=40)
    title: str
    description: str
    tags: list[str]
    schemaVersion: int = Field(ge=36)
    version: int
    editable: bool
    graphTooltip: Literal[0, 1, 2]
    refresh: str = Field(pattern=r"^\d+[smhd]$")
    time: Time
    templating: Templating
    panels: list[Row | Drawn]


def test_the_board_keeps_to_grafana_s_schema():
    board = Board.model_validate(json.loads(grafana.FILE.read_text()))
    assert len({p.id for p in board.panels}) == len(board.panels)
    taken = set()
    for panel in board.panels:
        place = panel.gridPos
        cells = {(x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)}
        assert place.x + place.w <= 24
        assert not cells & taken, panel.title
        taken |= cells
    drawn = [p for p in board.panels if isinstance(p, Drawn)]
    assert [(p.title, [t.expr for t in p.targets]) for p in drawn] == [
        (p.title, [q.expr for q in p.queries]) for row in panels.ROWS for p in row.panels
    ]
    for panel in drawn:
        assert set(panel.options) == ({"legend", "tooltip"} if panel.type == "timeseries" else set(panel.options))
        assert (panel.fieldConfig.defaults.custom is None) == (panel.type == "stat")
    names = {v["name"]: v["type"] for v in board.templating.list}
    assert names == {"datasource": "datasource", "SessionName": "query"}


def test_the_command_writes_it_where_grafana_looks(tmp_path, monkeypatch):
    invoke = CliRunner().invoke
    path = tmp_path / "boards" / install.NAME
    for _ in range(2):  # over its own
        said = invoke(app, ["dashboards", "--out", str(tmp_path / "boards")])
        assert (said.exit_code, said.stdout.strip()) == (0, str(path))
    assert path.read_text() == grafana.written()
    path.write_text(json.dumps({"uid": "another"}))
    assert "somebody else's" in str(invoke(app, ["dashboards", "--out", str(tmp_path / "boards")]).exception)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    assert "Start one first" in str(invoke(app, ["dashboards", "--install"]).exception)
    assert "one of them" in str(invoke(app, ["dashboards"]).exception)
