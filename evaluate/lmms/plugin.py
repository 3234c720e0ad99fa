"""A checkpoint of ours as a model of lmms-eval: its entry point `lmms_eval.models` leads here.

`lmms-eval eval --model vinnow --model_args pretrained=FOLDER --tasks pope --batch_size 64` asks whole models, adapters and
MoReS through the same `Generator` as `vinnow evaluate`. lmms-eval is an extra: this module is imported without it, too.
"""

import os
from collections.abc import Callable
from typing import Any, NoReturn

from ...store.errors import InputError
from ..generator import Generator
from ..talk import open_generator
from .asking import Asking
from .clusters import check_file, write_clusters
from .config import LmmsConfig
from .requests import Request, read_request

_ABSENT = "lmms-eval is not installed here: pip install 'vinnow[lmms]'."
NAME = "vinnow"

try:
    from lmms_eval.api.model import lmms as _Base  # type: ignore[reportMissingImports]
except ModuleNotFoundError:

    class _Base:
        def __init__(self) -> None:
            raise InputError(_ABSENT)


def manifests() -> Any:
    """Return what lmms-eval's registry takes.

    Raises:
        InputError: lmms-eval is not installed.
    """
    try:
        from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise InputError(_ABSENT) from error
    return ModelManifest(NAME, simple_class_path=f"{__name__}.{VinnowModel.__name__}")


class VinnowModel(_Base):  # type: ignore[reportGeneralTypeIssues]
    """What lmms-eval calls. `pretrained`: the checkpoint; the rest are the fields of `LmmsConfig`."""

    is_simple = True

    def __init__(self, pretrained: str = "", **values: Any) -> None:
        """Load the checkpoint.

        Raises:
            InputError: no checkpoint, a value that does not fit, or several processes.
        """
        super().__init__()
        if not pretrained:
            raise InputError("--model_args wants pretrained=FOLDER: a whole model, an adapter or MoReS.")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "lmms-eval was started in several processes; this model answers in one. Give each GPU its own command, "
                "with --limit and --offset, and join their per-sample files by `vinnow import-lmms`."
            )
        if "model" in values:
            raise InputError("--model_args pretrained=… names the checkpoint, model=… does not.")
        self.config = LmmsConfig.fitting(str(pretrained), values)
        if self.config.clusters:
            check_file(self.config.clusters)
        self._pictures = dict[tuple[str, int], str]()
        self.generator: Generator | None = open_generator(self.config)

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Return lmms-eval's `GenerationResult` of each request: its answer, and how many tokens it took."""
        from lmms_eval.api.instance import GenerationResult, TokenCounts  # type: ignore[reportMissingImports]

        replies = self._asked(requests, Asking.answers)
        return [GenerationResult(r.text, TokenCounts(r.prompt_tokens, len(r.tokens))) for r in replies]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Return (mean loss, whether greedy decoding says it) of each continuation; see `Asking.losses`."""
        from lmms_eval.api.instance import GenerationResult  # type: ignore[reportMissingImports]

        losses = self._asked(requests, Asking.losses)
        # 0.7.3 makes a text of a bare pair, and then cannot score it
        return [GenerationResult(pair) for pair in losses]

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """Refuse: what a round asks follows from the answer before. Raises: InputError."""
        _refuse(requests, "several rounds (generate_until_multi_round)")

    def generate_until_agentic(self, requests: list[Any]) -> list[Any]:
        """Refuse. Raises: InputError."""
        _refuse(requests, "an agent's steps (generate_until_agentic)")

    def generate_visual_cot(self, requests: list[Any]) -> list[Any]:
        """Refuse: nothing here draws pictures. Raises: InputError."""
        _refuse(requests, "pictures that the model draws (generate_visual_cot)")

    def clean(self) -> None:
        """Let the model go; a judge may want its memory."""
        self.generator = None
        super().clean()

    @property
    def chat_template(self) -> str:
        """Refuse `--apply_chat_template`. Raises: InputError."""
        raise InputError("--apply_chat_template is not there: --model_args template=… names the conversation template.")

    def apply_chat_template(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse `--apply_chat_template`. Raises: InputError."""
        raise InputError("--apply_chat_template is not there: --model_args template=… names the conversation template.")

    def _asked(self, requests: list[Any], ask: Callable[[Asking, list[Request]], list[Any]]) -> list[Any]:
        if self.generator is None:
            raise InputError("the model was let go after its answers; make a new one to ask again.")
        with _Bar(len(requests)) as bar:
            asking = Asking(self.generator, self.config, _warn, bar.step)
            results = ask(asking, [read_request(r, self.task_dict) for r in requests])
        self._pictures |= asking.pictures
        if self.config.clusters:
            write_clusters(self.config.clusters, self._pictures)
        return results


def _refuse(requests: list[Any], what: str) -> NoReturn:
    tasks = ", ".join(sorted({str(r.task_name) for r in requests}))
    raise InputError(f"task {tasks} asks for {what}, which vinnow's models do not do in lmms-eval. Leave it out.")


def _warn(text: str) -> None:
    from loguru import logger  # type: ignore[reportMissingImports]

    logger.warning(text)


class _Bar:
    """lmms-eval's bar of requests."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc="Model Responding")

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def step(self, count: int) -> None:
        """Show that so many more requests are done."""
        self._bar.update(count)
