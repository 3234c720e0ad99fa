"""How many rows a stage's model would refuse, counted before a device is taken: sizes alone say what is too long."""

from functools import lru_cache

from ...models.encoding import make_encoder
from ...models.load import load_processor
from ...pool.fitting import Fit, foresee_fit
from ...pool.inputs import InputConfig
from ...pool.reader import Pool
from ...store.errors import InputError
from ...store.files import is_uri
from ...store.usage import by_reason
from ..progress import bar
from .stage import tell


def check_fit(stage: str, pool: str, model: str, config: InputConfig, limits: tuple[str | None, float]) -> None:
    """Tell of the rows with pictures that the model would refuse; `limits`: image root (None: the pool's) and max_refused.

    The same rows, model and lengths are looked at once a process.

    Raises:
        InputError: they are more than the share `max_refused` of all rows.
    """
    root, max_refused = limits
    fit = _foresee(pool, model, (config.template, config.max_len, config.image_mode), config.pictures, root)
    if fit is None:
        tell(f"{stage}: the pictures lie in an object store, so which rows are too long is found when they are read.")
        return
    lost = sum(fit.refused.values())
    if not lost:
        return
    share, example = lost / fit.rows, "; ".join(fit.examples[:1])
    said = f"{lost:,} of {fit.rows:,} rows ({share:.1%}) would be refused ({by_reason(fit.refused)}); {example}"
    if share > max_refused:
        raise InputError(
            f"{stage}: {said} That is over max_refused ({max_refused:.1%}), so nothing was started: give a larger max_len, "
            "or accept the loss with a larger max_refused. `vinnow doctor --model` says more."
        )
    tell(f"{stage}: {said}")


@lru_cache(32)
def _foresee(pool: str, model: str, text: tuple[str, int, str], pictures: str, root: str | None) -> Fit | None:
    encoder, rows = make_encoder(load_processor(model), *text, pictures), Pool(pool)  # pyright: ignore[reportArgumentType]
    root = root or rows.image_root
    if encoder.reader.fixed is None and root is not None and is_uri(root):
        return None
    with bar("lengths", "rows") as progress:
        return foresee_fit(rows, encoder, root, progress)
