"""A stage's account of its rows: what is told, and when it fails."""

import pytest

from vinnow.pool.checks import REASONS
from vinnow.store.errors import InputError
from vinnow.store.usage import EXPECTED, TRY_AGAIN, Usage


def test_line_names_counts_reasons_and_the_list():
    assert Usage(400, {}, "X").line() == "400 rows used, none refused"
    usage = Usage(1380, {"image_missing": 2, "not_encodable": 18}, "OUT/refused")
    assert usage.line() == (
        "1,380 rows used, 20 refused (not_encodable 18, image_missing 2; listed in OUT/refused)"
    )


def test_share_at_the_limit_passes_and_one_row_more_fails():
    Usage(95, {"image_missing": 5}, "X").check("train", 0.05)
    with pytest.raises(InputError, match=r"train: 6.0% .* over max_refused \(5.0%\): image_missing 6; listed in X"):
        Usage(94, {"image_missing": 6}, "X").check("train", 0.05)
    Usage(94, {"image_missing": 6}, "X").check("train", 0.06)


def test_no_row_used_always_fails():
    with pytest.raises(InputError, match="not one row could be used .image_missing 6"):
        Usage(0, {"image_missing": 6}, "X").check("features", 1.0)
    with pytest.raises(InputError, match="not one row could be used .no_image 3"):
        Usage(0, {"no_image": 3}, "X").check("features", 1.0)
    with pytest.raises(InputError, match="there were none"):
        Usage(0, {}, "X").check("features", 1.0)


def test_rows_that_a_stage_cannot_use_by_its_nature_are_no_loss():
    Usage(50, {"no_image": 50}, "X").check("trajectory", 0.0)
    assert Usage(50, {"no_image": 50, "image_empty": 50}, "X").lost == 0.5


def test_reasons_are_those_of_the_checks():
    assert EXPECTED | TRY_AGAIN <= set(REASONS)
    assert not EXPECTED & TRY_AGAIN
