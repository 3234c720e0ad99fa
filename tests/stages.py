"""Some of a run's stages alone, with the checkpoints that a test has."""

from vinnow.pipelines.runs.feature_stage import Features
from vinnow.pipelines.runs.ingest_stage import Ingest
from vinnow.pipelines.runs.stages import stages_of


def ingest_pools(run):
    """Ingest every pool that the config names."""
    for stage in stages_of(run.config):
        if isinstance(stage, Ingest):
            stage.run(run)


def make_features(run, checkpoints):
    """Write every feature at these checkpoints, for the pool and for the targets."""
    for stage in stages_of(run.config):
        if isinstance(stage, Features):
            stage.make(run, checkpoints)
