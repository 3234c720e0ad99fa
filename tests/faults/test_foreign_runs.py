"""Each file of a finished run damaged in turn, under the commands that read it: one line that names it."""

import contextlib
import json
import shutil
import sys

import finished
import foreign
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import BINARY, JSON, damaged, one_line, put_field, vinnow

HOWS = (
    "empty",
    "garbage",
    "cut",
    "latin1",
    "list",
    "text",
    "null",
    "object",
    "nested",
    "huge-number",
    "folder",
    "fifo",
)
# (file, commands that must read it, fields of which each is taken away or made a list)
OBJECTS = {
    "run.json": (("status", "report", "run"), ("digest", "config")),
    ".vinnow.json": (("run",), ("stage",)),
    "pool/pool.json": (("report", "run", "plan", "select", "export", "features", "train"), ("digest", "rows")),
    "stages/proxy.json": (("status", "report", "run"), ("name", "fingerprint", "inputs", "facts")),
    "stages/select.json": (("status", "report", "run"), ("facts",)),
    "stages/sweep.json": (("status", "report", "run"), ("facts",)),
    "train/proxy/train.json": (("run",), ("checkpoints", "model", "steps")),
    "sweep/random-20pct-s0/result.json": (("report",), ("rows", "run", "selector", "train_seconds")),
    "sweep/random-20pct-s0/eval/evals.json": (("evaluate",), ("key", "parts", "rows")),
}
# what is read again where a stage's manifest is gone
UNDER_WAY = {
    "train/proxy/log.jsonl": ("status",),
    "train/proxy/config.json": ("run",),
    "pool/part-000000.parquet": ("status",),
}
TABLES = {
    "pool/part-000000.parquet": ("report", "run", "select", "export", "train", "features"),
    "pool/refused.parquet": ("report",),
    "picks/less-20pct.parquet": ("report", "export", "train"),
    "scores/less.parquet": ("report",),
    "evals.parquet": ("report",),
    "features/gradient/step=00000003/part-*.parquet": ("select",),
    "features/trajectory/step=00000003/part-*.parquet": ("report", "xmas"),
    "targets/gradient/step=00000003/part-*.parquet": ("select",),
}


def _table(change):
    def put(path):
        table = pq.read_table(path, partitioning=None)
        foreign.clear(path)
        pq.write_table(change(table), path)

    return put


def _texts(table):
    columns = {n: pa.array(["x"] * table.num_rows, pa.string()) for n in table.column_names}
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)


def _footers(value):
    return lambda t: t.replace_schema_metadata(dict.fromkeys(t.schema.metadata or {b"x": b""}, value))


def _shorter(table):
    """Without the last column that a table must have: EVALS of older versions have no `cluster`, and are read."""
    names = [n for n in table.column_names if n != "cluster"]
    return table.select(names[:-1])


# the name of the evaluation that a run has made, which the command is told to go on with
EVALUATED = {}
COLUMNS = {
    "other columns": _table(lambda t: pa.table({"x": [1]})),
    "texts alone": _table(_texts),
    "no last column": _table(_shorter),
    "no first column": _table(lambda t: t.drop_columns([t.column_names[0]])),
}
FOOTERS = {"no footer": _table(_footers(b"")), "odd footer": _table(_footers(b"{]")), "list": _table(_footers(b"[1]"))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run that no test changes for good; what would compute anew stops there."""
    patch = pytest.MonkeyPatch()
    finished_run = finished.finish(tmp_path_factory.mktemp("finished"), patch)
    for where, name in finished.STAND_INS:
        if (where, name) != (finished.stream, "run_features"):
            patch.setattr(where, name, foreign.no_ray)
    # `evaluate` connects first; the others would go on to Ray itself
    patch.setattr(
        "vinnow.actors.cluster.ensure_ray", lambda *_: None if sys.argv[1] == "evaluate" else foreign.no_ray()
    )
    EVALUATED[str(finished_run.out)] = json.loads(
        (finished_run.out / "sweep/random-20pct-s0/eval/evals.json").read_text()
    )["key"]["run"]
    yield finished_run
    patch.undo()


@pytest.fixture
def commands(run, tmp_path):
    """The command lines by name."""
    out, pool = run.out, run.out / "pool"
    (tmp_path / "train.yaml").write_text(json.dumps(finished.STEP | {"model": str(out / "twin"), "pool": str(pool)}))
    stores = ["--pool", pool, "--features", out / "features", "--budget", "20%", "--out", tmp_path / "chosen"]
    model, picks = out / "sweep/random-20pct-s0/train/model", out / "picks/less-20pct.parquet"
    return {
        "status": ["status", out],
        "report": ["report", out],
        "run": ["run", run.yaml],
        "plan": ["plan", run.yaml],
        "select": ["select", *stores, "--targets", out / "targets", "--selector", "less"],
        "xmas": ["select", *stores, "--selector", "xmas"],
        "export": ["export", pool, "--picks", picks, "--out", tmp_path / "e.json"],
        "evaluate": [
            *("evaluate", "--model", model, "--pool", out / "test", "--out", out / "sweep/random-20pct-s0/eval"),
            *("--benchmark", "short_answer", "--set", "max_len=256", "--set", "max_new_tokens=2"),
            *("--set", f"run={EVALUATED[str(out)]}"),
        ],
        "train": ["train", tmp_path / "train.yaml", "--set", f"picks={picks}", "--out", tmp_path / "trained"],
        "features": [
            *("features", "--pool", pool, "--kind", "loss", "--out", tmp_path / "made"),
            *("--checkpoint", f"3={out / 'train/proxy/checkpoint-3'}"),
        ],
    }


def file_of(run, name):
    return next(run.out.glob(name))


def test_the_run_is_sound_to_begin_with(run, commands):
    for name, arguments in commands.items():
        said = vinnow(*arguments)
        assert said.code == 0, (name, said.text, said.trace)
    assert all("under way" not in line for line in vinnow("status", run.out).text.splitlines())


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object(run, commands, name, how):
    with damaged(run.out / name, JSON[how]):
        for command in OBJECTS[name][0]:
            if command == "report" and name.startswith("stages") and how in ("folder", "fifo"):
                continue  # it tells of the stages that have a manifest
            one_line(vinnow(*commands[command]), name, run.out)


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, (_, fields) in OBJECTS.items() for f in fields])
def test_a_field(run, commands, name, field):
    def gone(path):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != field}))

    read = OBJECTS[name][0] if field not in ("digest", "checkpoints") else OBJECTS[name][0][-1:]
    # facts and checkpoints may be none
    for how in (lambda p: put_field(p, field, "[1]"), *([gone] if field not in ("facts", "checkpoints") else [])):
        with damaged(run.out / name, how):
            for command in read:
                one_line(vinnow(*commands[command]), name, run.out)


# a last line without its end is one that was half written
HALF = ("garbage", "latin1", "object", "nested", "huge-number")


@pytest.mark.parametrize("how", ["garbage", "latin1", "object", "nested", "huge-number", "folder"])
@pytest.mark.parametrize("name", UNDER_WAY)
def test_what_a_stage_under_way_has_left(run, commands, name, how):
    is_log, is_table = name.endswith("log.jsonl"), name.endswith(".parquet")
    kind = BINARY.get(how, BINARY["garbage"]) if is_table else JSON[how]
    with contextlib.ExitStack() as there:
        for manifest in ("proxy", "ingest-pool"):
            there.enter_context(damaged(run.out / f"stages/{manifest}.json", foreign.clear))
        if is_log:
            there.enter_context(damaged(run.out / "train/proxy/train.json", foreign.clear))
        there.enter_context(damaged(run.out / name, kind))
        for command in UNDER_WAY[name]:
            said = vinnow(*commands[command])
            if (is_log and how in HALF) or (is_table and how == "folder"):  # or there is no part yet
                assert said.code == 0
            else:
                one_line(said, name.rsplit("/", 1)[0])


def test_a_log_with_an_odd_line(run, commands):
    lines = ('{"step": "x", "loss": 1}', "[1]", "{]", '{"step": 1}', '{"step": ' + foreign.HUGE + "}", foreign.DEEP)
    with damaged(run.out / "stages/proxy.json", foreign.clear):
        for line in lines:
            with damaged(run.out / "train/proxy/log.jsonl", lambda p, line=line: p.write_text(line + "\n")):
                one_line(vinnow(*commands["status"]), "log.jsonl, line 1")


@pytest.mark.parametrize("how", [*(b for b in BINARY if b not in ("folder", "loop", "dangling", "fifo")), *COLUMNS])
@pytest.mark.parametrize("name", TABLES)
def test_a_table(run, commands, name, how):
    if how == "texts alone" and name.endswith("refused.parquet"):
        pytest.skip("no row was refused, so no value is of a wrong type")
    file = file_of(run, name)
    sound = pq.read_table(file)
    with damaged(file, (BINARY | COLUMNS)[how]):
        for command in TABLES[name]:
            said = vinnow(*commands[command])
            if how == "flipped" and said.code == 0:  # the bytes lie where no value does, in statistics say
                assert pq.read_table(file).equals(sound)
            else:
                one_line(said, name.split("*")[0], run.out / name.split("/")[0])


@pytest.mark.parametrize("how", FOOTERS)
def test_a_footer(run, commands, how):
    for name in ("features/gradient/step=00000003/part-*.parquet", "targets/gradient/step=00000003/part-*.parquet"):
        with damaged(file_of(run, name), FOOTERS[how]):
            one_line(vinnow(*commands["select"]), name.split("*")[0])


def test_no_damage_is_left_behind(run, commands, tmp_path):
    """Last: what the tests above put back is the run as it was."""
    shutil.rmtree(tmp_path / "chosen", ignore_errors=True)
    for name in ("status", "report", "run", "select"):
        assert vinnow(*commands[name]).code == 0
