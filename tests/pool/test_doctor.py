"""The doctor's comparison with mix665k, and its length limit; its counts of damage stand in tests/faults."""

import json
import os
import sys
from pathlib import Path

from rich.console import Console
from vinnow.pool.doctor import MIX665K, examine, render
from vinnow.pool.ingest import IngestConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import make_pool


def shown(report) -> str:
    console = Console(width=220, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for table in render(report):
        console.print(table)
    return console.export_text()


def test_a_pool_like_mix665k_is_compared_with_it(tmp_path):
    source = make_pool.write_json(tmp_path / "mix.json", 2000)
    report = examine(IngestConfig(source=source, check_images="none"))
    assert report.rows == 2000
    assert report.composition is not None
    # the synthetic pool has mix665k's shares
    for name, row in report.composition.items():
        assert row["known"] == MIX665K[name]
        assert row["difference"] == row["records"] - row["known"]
        assert abs(row["records"] - row["known"] * 2000 / 665_298) < 5
    assert sum(r["records"] for r in report.composition.values()) == 2000
    assert "beside mix665k" in shown(report)
    # refused rows count where they come from
    missing = examine(IngestConfig(source=source, image_root=str(tmp_path), check_images="exists"))
    assert missing.reasons == {"image_missing": 2000 - report.by_source["text"]}
    assert missing.composition == report.composition


def test_the_synthetic_pool_is_the_same_again_and_at_full_size_mix665k():
    assert list(make_pool.records(50, 3)) == list(make_pool.records(50, 3)) != list(make_pool.records(50, 4))
    by_folder: dict[str, int] = {}
    for name, n in make_pool.shares(make_pool.ROWS).items():
        folder = (make_pool.SETS[name][1] or "text").split("/")[0]
        by_folder[folder] = by_folder.get(folder, 0) + n
    assert by_folder == MIX665K


def test_lengths_over_a_limit(tmp_path, make_processor):
    make_processor("metaspace-first").save_pretrained(tmp_path / "processor")
    turns = [{"from": "human", "value": " one  two\nthree "}, {"from": "gpt", "value": "four"}]
    (tmp_path / "r.json").write_text(json.dumps([{"conversations": turns}]))
    config = IngestConfig(source=str(tmp_path / "r.json"))
    assert examine(config, max_len=4).warnings == {}
    assert examine(config, max_len=3).examples["over_length"] == ["row 0: 4 words"]
    tokens = config.model_copy(update={"tokenizer": str(tmp_path / "processor")})
    assert "tokens" in examine(tokens, max_len=3).examples["over_length"][0]
    assert "over_length" in shown(examine(config, max_len=3))


def test_what_data_says_is_text_to_the_terminal(tmp_path):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    odd = ["[/foo]", "[bold red]x", "\x1b[31mred\x1b[0m", "a\rb\x07"]
    records = [{"source": s, "task": s + "t", "conversations": turns} for s in odd]
    records += [{"source": s, "image": s, "conversations": [{"from": s, "value": "x"}]} for s in odd]
    (tmp_path / "r.json").write_text(json.dumps(records))
    console = Console(record=True, width=200)
    for table in render(examine(IngestConfig(source=str(tmp_path / "r.json"), check_images="none"))):
        console.print(table)
    text = console.export_text()
    assert "[/foo]" in text
    assert "[bold red]x" in text
    assert not set("\x1b\r\x07") & set(text)
