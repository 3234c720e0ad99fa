"""A test set becomes longer, and the process dies between any two writes: the next try ends as one that nobody killed.

Points are counted at every rename, write and removal of the run, and halfway through each removal. Trainings are stood in
for (`finished.py`); pools, answers and everything on disk are real.
"""

import json
import subprocess
from pathlib import Path

import pytest
from commands import python_line

TESTS = Path(__file__).parents[1]
SCRIPT = """
import json, os, shutil, sys
tests, folder, back = sys.argv[1:]
sys.path.insert(0, tests)
import torch
torch.set_num_threads(1)
from pathlib import Path
from finished import STAND_INS, values_of
from pictures import make_records, write_records
from vinnow.evaluate import run as _
from vinnow.pipelines.runs import ingest_stage
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.run import run_stages
from vinnow.pool.reader import Pool
from vinnow.store import files
from vinnow.store.errors import InputError
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, read_rows

for (where, name), stand_in in STAND_INS.items():
    setattr(where, name, stand_in)
folder = Path(folder)
values = values_of(folder) | {"selectors": [{"name": "random"}], "features": [], "proxy": None, "target": None}
records, pictures = make_records(9, seed=9)
more, drawn = make_records(5, seed=77)
more = [r | {"image": "more/" + r["image"]} if "image" in r else r for r in more]
(folder / "longer").mkdir()
write_records(folder / "longer", records + more, pictures | {f"more/{n}": p for n, p in drawn.items()})
longer = values | {"test": {"source": str(folder / "longer/records.json"), "image_root": str(folder / "longer/images")}}

def forked(work):
    child = os.fork()
    if not child:
        code = 1
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def do(config, out):
    with open(folder / "words", "a") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            run_stages(resolve(json.loads(json.dumps(config | {"out": str(out)}))), report=False)
        except InputError as error:
            (folder / "refused").write_text(str(error))
            return 3

count, stop, seen = 0, None, []

def point(what):
    global count
    count += 1
    seen.append(what)
    if count == stop:
        os._exit(9)

def counted(function, name, halfway=None):
    def work(*arguments, **options):
        what = f"{name} {' '.join(os.path.basename(str(a)) for a in arguments if isinstance(a, (str, os.PathLike)))}"
        there = name != "rmtree" or os.path.isdir(arguments[0])
        if there:
            point(f"before {what}")
        if halfway and there:
            halfway(arguments[0])
            point(f"halfway {what}")
        result = function(*arguments, **options)
        if there:
            point(f"after {what}")
        return result
    return work

def first_half(place):
    names = sorted(p for p in Path(place).rglob("*") if p.is_file())
    for path in names[: (len(names) + 1) // 2]:
        path.unlink()

def killed_at(number, out):
    # returns what was done at each point, where none is named
    def work():
        global stop
        stop = number
        os.replace = counted(os.replace, "replace")
        shutil.rmtree = counted(shutil.rmtree, "rmtree", first_half)
        files._put = counted(files._put, "write")
        code = do(longer, out)
        (folder / "seen").write_text(json.dumps(seen))
        return code
    return forked(work)

def left(out):
    answers = read_rows(f"{out}/evals.parquet", EVALS).drop_columns(["seconds"] if "seconds" in EVALS.names else [])
    result = read_json(f"{out}/sweep/random-20pct-s0/result.json")
    asked = sorted(str(p.relative_to(out)) for p in Path(out, "sweep").rglob("answers/*.parquet"))
    stage = read_json(f"{out}/stages/ingest-test.json")
    return {
        "evals": sorted(json.dumps(row, sort_keys=True) for row in answers.to_pylist()),
        "result": {n: result[n] for n in ("run", "test", "accuracy", "by_task", "loss", "not_asked")},
        "asked": asked,
        "test": [Pool(f"{out}/test").digest, stage["facts"]["rows"], stage["fingerprint"]],
        "folders": sorted(n for n in os.listdir(out) if ".tmp-" not in n),
    }

base = folder / "base"
assert forked(lambda: do(values, base)) == 0
shutil.copytree(base, folder / "once")
assert killed_at(None, folder / "once") == 0
points, once = json.loads((folder / "seen").read_text()), left(folder / "once")
end = max(n for n, what in enumerate(points, 1) if "test-before" in what)
# the swap itself, and the way to it and the answers here and there
first = points.index("before replace test test-before") + 1
chosen = [*range(first - 2, end + 2), *(range(end + 2, len(points) + 1, 4) if back == "on" else [1, 8])]
wrong = []
for number in chosen:
    out = folder / "killed"
    shutil.copytree(base, out)
    assert killed_at(number, out) == 9, number
    if back == "back":
        code = forked(lambda: do(values, out))
        refused = (folder / "refused").read_text() if code == 3 else ""
        if code not in (0, 3) or code == 3 and "the test set is another one" not in refused:
            wrong.append([number, points[number - 1], "back", code, refused])
        elif not code and Pool(f"{out}/test").rows != Pool(f"{base}/test").rows:
            wrong.append([number, points[number - 1], "back to something else"])
    code = forked(lambda: do(longer, out))
    now = None if code else left(out)
    if code or now != once:
        said = (folder / "refused").read_text() if code == 3 else ""
        differs = [] if code else [n for n in once if once[n] != now[n]]
        wrong.append([number, points[number - 1], code, said, differs, now and now["folders"]])
    shutil.rmtree(out)
print(json.dumps({"points": points, "wrong": wrong, "once": once}))
"""


@pytest.mark.parametrize("then", ["on", "back"])
def test_a_kill_between_any_two_writes_of_a_longer_test_set_changes_nothing(tmp_path, then):
    command = [*python_line(), "-c", SCRIPT, str(TESTS), str(tmp_path), then]
    said = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    words = (tmp_path / "words").read_text()[-3000:] if (tmp_path / "words").exists() else ""
    assert said.returncode == 0, said.stderr[-3000:] + words
    met = json.loads(said.stdout.splitlines()[-1])
    assert len(met["once"]["evals"]) == met["once"]["test"][1] > 9
    swap = [what for what in met["points"] if "test-before" in what or "replace test-next test" in what]
    assert {"after replace test test-before", "after replace test-next test", "halfway rmtree test-before"} <= set(swap)
    assert not met["wrong"], met["wrong"]
