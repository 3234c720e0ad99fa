"""What a config means for the run that is in its `out`, before anything is done: what a plan needs to know of the folder.

Nothing is written there. A longer test set is ingested into a folder of its own for as long as that takes.
"""

import tempfile
from dataclasses import dataclass, field, replace

from ...pool.ingest import MANIFEST
from ...pool.reader import Pool
from ...store.claim import check_claim
from ...store.errors import InputError
from ...store.files import exists, join
from .config import RunConfig
from .ingest_stage import Ingest
from .longer_test import check_longer
from .opening import foreseen
from .samples import Sample, look_at_pool
from .stage import Questions
from .stages import stages_of


@dataclass(frozen=True)
class Ahead:
    """`lines`: what a grown config adds and takes away. `test`: the longer test set, where one takes the old one's place.

    `questions`: of the test pool that there is, or is to be.
    """

    lines: list[str] = field(default_factory=list)
    questions: Questions | None = None
    test: Sample | None = None


def foresee(config: RunConfig) -> Ahead:
    """Look at the run in a config's `out`.

    Raises:
        InputError: `vinnow run` would refuse the config, in the same words.
    """
    check_claim(config.out, "run", r"run\.json")
    growth, place = foreseen(config), join(config.out, "test")
    lines = growth.lines()
    for stage in stages_of(config):
        if isinstance(stage, Ingest) and not stage.differs():
            stage.raise_edited()
    if exists(join(place, MANIFEST)) and (growth.longer or Ingest(config, "test").differs()):
        return _longer(config, lines)
    return Ahead(lines, _questions(place) if exists(join(place, MANIFEST)) else None)


def _longer(config: RunConfig, lines: list[str]) -> Ahead:
    with tempfile.TemporaryDirectory(prefix="vinnow-plan-") as folder:
        place = join(folder, "test")
        try:
            check_longer(config.out, config.test, place)
        except InputError as error:  # what lists its rows is gone with the folder
            raise InputError(str(error).replace(join(place, "refused.parquet"), "`vinnow doctor`")) from error
        sample, questions = look_at_pool(place), _questions(place)
    usage = replace(sample.usage, listed="`vinnow doctor`")
    return Ahead(lines, questions, replace(sample, usage=usage))


def _questions(place: str) -> Questions:
    pool = Pool(place)
    return Questions(pool.digest, pool.ids())
