"""A part that ends its process again and again is named; one that was only stopped from outside is not."""

import pytest
from vinnow.store.tries import FOLDER, PoisonError, begin, end, forget


def test_a_part_that_is_begun_and_never_ended_is_named(tmp_path):
    for _ in range(3):
        begin(tmp_path, "loss", "part-000002", 3, "rows 512 to 767 of the pool")
    with pytest.raises(PoisonError, match=r"loss of part-000002 \(rows 512 to 767 of the pool\) died 3 times"):
        begin(tmp_path, "loss", "part-000002", 3, "rows 512 to 767 of the pool")
    begin(tmp_path, "loss", "part-000003", 3, "")
    forget(tmp_path, "loss")
    forget(tmp_path, "gradient")
    begin(tmp_path, "loss", "part-000002", 1, "")


def test_a_part_that_ends_counts_anew(tmp_path):
    for _ in range(5):
        begin(tmp_path, "loss", "part-000002", 2, "")
        end(tmp_path, "loss", "part-000002")
        end(tmp_path, "loss", "part-000002")
    assert list((tmp_path / FOLDER / "loss").iterdir()) == []
