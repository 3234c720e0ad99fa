"""The order of files: unknown ones first, then by recorded seconds; what is recorded is what was run."""

from types import SimpleNamespace

from order import TESTS, Recorder, longest_first, read_table


def item(name, *fixtures):
    return SimpleNamespace(path=TESTS / name, fixturenames=fixtures, nodeid=f"tests/{name}::test")


def test_the_longest_come_first_and_what_nobody_has_timed_before_them():
    items = [item("a"), item("b"), item("c", "ray_cluster"), item("d"), item("b", "tmp_path"), item("e", "ray_cluster")]
    longest_first(items, {"b": 3.5, "d": 9.0, "e": 0.5})
    assert [i.path.name for i in items] == ["c", "a", "d", "b", "b", "e"]
    assert [i.fixturenames for i in items if i.path.name == "b"] == [(), ("tmp_path",)]
    longest_first(items, {})
    assert [i.path.name for i in items] == ["c", "e", "a", "d", "b", "b"]


def test_a_recorded_run_renews_its_own_files_and_drops_those_that_are_gone(tmp_path):
    table = tmp_path / "seconds.json"
    assert read_table(table) == {}
    table.write_text('{"conftest.py": 4, "order.py": 2, "gone.py": 9}')
    recorder = Recorder(table)
    for seconds in (0.25, 1.0):
        recorder.pytest_runtest_logreport(SimpleNamespace(nodeid="tests/order.py::test_x[a::b]", duration=seconds))
    recorder.pytest_sessionfinish()
    assert read_table(table) == {"conftest.py": 4, "order.py": 1.2}
