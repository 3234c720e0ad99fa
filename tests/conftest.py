"""Shared by all tests: one Ray cluster a session, one tiny model, one small pool with pictures."""

import os

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
    # a process more for each training, which looks whether a cloud takes a node back: none does here
    RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0",
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    # as commands have it: their processes and these can be forks of one
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DS_ACCELERATOR="cpu",
)

import pytest
from order import Recorder, longest_first, read_table
from pictures import make_records, write_records


@pytest.fixture(scope="session")
def ray_cluster():
    """One small local cluster for the whole session: 4 logical CPUs, 500 MB of object store."""
    import ray
    from vinnow.actors.forks.start import forked_workers

    with forked_workers(None):
        ray.init(
            address="local",  # never the other worker's
            num_cpus=4,
            object_store_memory=500_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_pool(tmp_path_factory) -> str:
    """A POOL folder of 60 rows (12 text-only), made by the real ingest."""
    from vinnow.pool.ingest import IngestConfig, ingest

    folder = tmp_path_factory.mktemp("tiny")
    source = write_records(folder, *make_records(60))
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


@pytest.fixture(scope="session")
def target_pool(tmp_path_factory) -> str:
    """A small target POOL (9 rows) of its own."""
    from vinnow.pool.ingest import IngestConfig, ingest

    folder = tmp_path_factory.mktemp("target")
    source = write_records(folder, *make_records(9, seed=99))
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A two-layer LLaVA with random weights, its tokenizer trained on the tiny pool's words."""
    return _tiny_model(tmp_path_factory)


@pytest.fixture(scope="session")
def talkative_model(tmp_path_factory) -> str:
    """The same with positions for an answer of 2,000 tokens: no machine is through with it in a second."""
    return _tiny_model(tmp_path_factory, max_len=4096)


def _tiny_model(tmp_path_factory, **config) -> str:
    from vinnow.models.family.of_llava.tiny import build_tiny_model
    from vinnow.models.specs import TinyModelConfig
    from vinnow.pool.templates import TEMPLATES

    texts = [TEMPLATES["v1"].system + " USER: ASSISTANT: "] * 9 + [
        turn["value"] for record in make_records(60)[0] for turn in record["conversations"]
    ]
    return build_tiny_model(str(tmp_path_factory.mktemp("twin") / "model"), texts, TinyModelConfig(**config))


@pytest.fixture(scope="session")
def noise_root(tmp_path_factory) -> str:
    """A folder of pictures of several sizes, which `mixed_pool` and the tiny models of `tiny_of` are shown."""
    from tinies import draw_noise

    return draw_noise(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="session")
def mixed_pool(tmp_path_factory, noise_root) -> str:
    """A POOL of six rows: of one picture, of none, of two in one turn, of two in two turns."""
    from tinies import make_mixed

    return make_mixed(tmp_path_factory.mktemp("mixed"), noise_root)


@pytest.fixture(scope="session")
def tiny_of(tmp_path_factory, noise_root):
    """By a family's name: its tiny model (`tinies.Tiny`)."""
    from functools import cache

    from tinies import make_tiny

    return cache(lambda name: make_tiny(name, tmp_path_factory.mktemp(name), noise_root))


def pytest_addoption(parser):
    parser.addoption("--record-seconds", action="store_true", help="write what each file takes to tests/seconds.json")
    parser.addoption(
        "--record-works", action="store_true", help="write what passes on which family to tests/works.json"
    )


def pytest_configure(config):
    if config.getoption("record_seconds") and not hasattr(config, "workerinput"):  # one process writes, not its workers
        config.pluginmanager.register(Recorder())
    if config.getoption("record_works") and not hasattr(config, "workerinput"):
        import works

        config.pluginmanager.register(works.Recorder())


def pytest_collection_modifyitems(config, items):
    """Put the longest files first; skip GPU tests where there is no GPU (`tests/gpu_tests.txt` lists them)."""
    import torch

    longest_first(items, read_table())
    if config.getoption("record_works"):
        import works

        works.tell(items)
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
