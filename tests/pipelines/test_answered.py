"""A trial whose test set became longer: what all its answers come to is what one evaluation of all of it comes to."""

from dataclasses import asdict

from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.run import evaluate
from vinnow.pipelines.runs.answered import FIRST, ask, unasked
from vinnow.pool.reader import Pool
from vinnow.pool.subset import write_subset


def test_answers_of_two_evaluations_are_reported_as_of_one(tiny_model, tiny_pool, tmp_path):
    pool, trial = Pool(tiny_pool), str(tmp_path / "trial")
    short = write_subset(pool, pool.ids()[:25], str(tmp_path / "short")).root
    # 60 questions, the first 25 of which were asked before
    config = EvalConfig.parse({"model": tiny_model, "pool": tiny_pool, "run": "r", "benchmark": "contains"})
    evaluate(config.model_copy(update={"pool": short}), f"{trial}/{FIRST}", here=True)
    more = unasked(trial, tiny_pool, str(tmp_path / "more"))
    assert Pool(more).rows == pool.rows - 25
    report = ask(config, trial, more, here=True)
    whole = evaluate(config, str(tmp_path / "whole"), here=True)
    assert report.metrics == whole.metrics
    assert report.metrics["value"] is not None
    fields = {"rows", "refused", "reasons", "accuracy", "image_accuracy", "image_rows", "by_task", "rows_by_task"}
    assert {n: v for n, v in asdict(report).items() if n in fields} == {
        n: v for n, v in asdict(whole).items() if n in fields
    }
