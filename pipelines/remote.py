"""`vinnow evaluate --engine openai`, and what `judge` shares with it: an endpoint's config of a command's options."""

from dataclasses import dataclass
from typing import Any

from ..evaluate.config import IMBALANCE, OPEN, ShardsReport
from ..evaluate.remote.config import EndpointConfig
from ..evaluate.remote.evaluation import (
    RemoteEvalConfig,
    RemoteOpenConfig,
    RemoteReport,
    answer_open_remote,
    evaluate_remote,
)
from ..store.errors import InputError, suggest
from .progress import bar, console

ENGINES = ("vinnow", "openai")


@dataclass(frozen=True)
class Asked:
    """Who is to answer, as the options of a command have it."""

    engine: str
    model: str | None
    base_url: str | None
    api_model: str | None
    gpus: str = "auto"


def chosen(asked: Asked) -> bool:
    """Say whether an endpoint is asked.

    Raises:
        InputError: an unknown engine, or options that do not go together.
    """
    remote = {"--base-url": asked.base_url, "--api-model": asked.api_model}
    if asked.engine not in ENGINES:
        raise InputError(f"unknown engine {asked.engine!r}{suggest(asked.engine, ENGINES)}")
    if asked.engine == "openai":
        if asked.model is not None:
            raise InputError("--model loads a checkpoint, --engine openai asks an endpoint: give one of them.")
        if lacking := [n for n, value in remote.items() if not value]:
            raise InputError(f"--engine openai wants {' and '.join(lacking)}: which server, and which model of it.")
        if asked.gpus != "auto":
            raise InputError("--gpus places a model that is loaded here; an endpoint has its own.")
        return True
    if stray := [n for n, value in remote.items() if value]:
        raise InputError(f"{' and '.join(stray)}: only --engine openai asks an endpoint.")
    if asked.model is None:
        raise InputError("give --model FOLDER, or --engine openai with --base-url and --api-model.")
    return False


def endpoint_of(base_url: str, api_model: str, values: Any) -> EndpointConfig:
    """Return the endpoint of `--base-url`, `--api-model` and `--set endpoint.…`.

    Raises:
        InputError: a field does not fit, or an option is given twice.
    """
    if not isinstance(values, dict):
        raise InputError("--set endpoint.FIELD=VALUE sets a field of the endpoint; endpoint alone is none.")
    twice = {"base_url": "--base-url", "model": "--api-model"}
    if clash := [f"endpoint.{n} ({option} sets it)" for n, option in twice.items() if n in values]:
        raise InputError(f"--set {', '.join(clash)}: give it once.")
    return EndpointConfig.parse({"base_url": base_url, "model": api_model} | values, "endpoint")


def run_remote(asked: Asked, values: dict[str, Any], out: str, beside: list[str]) -> RemoteReport | ShardsReport:
    """Evaluate an endpoint; its answers to open questions have no scores.

    Raises: as `evaluate_remote`, and InputError for what no endpoint can be measured by.
    """
    if values["benchmark"] == IMBALANCE or beside:
        raise InputError(f"--benchmark {IMBALANCE} reads a model's own attention: give --model, no endpoint shows it.")
    endpoint = endpoint_of(str(asked.base_url), str(asked.api_model), values.pop("endpoint", {}))
    kind = RemoteOpenConfig if values["benchmark"] == OPEN else RemoteEvalConfig
    config = kind.parse(values | {"endpoint": endpoint})
    console.print(f"asking {endpoint.model} at {endpoint.base_url}", markup=False, soft_wrap=True)
    with bar("evaluate", "parts") as tell:
        if isinstance(config, RemoteOpenConfig):
            return answer_open_remote(config, out, progress=tell)
        return evaluate_remote(config, out, progress=tell)
