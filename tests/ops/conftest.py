"""One cluster for all tests that send jobs."""

from collections.abc import Iterator

import pytest
from heads import Head, started_head


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A cluster of one node; its job API asks for a token."""
    with started_head() as started:
        yield started
