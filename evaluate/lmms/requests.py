"""What lmms-eval asks, request by request: its documents' pictures and texts, and what its tasks say of generation.

Nothing that a task says is left out unseen: what is not known here is refused by its name, what is done otherwise is told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from PIL import Image

from ...pool.images import FORMATS, MAX_PIXELS
from ...pool.refusals import IMAGE, RefusedError
from ...pool.shown import Pictures, show
from ...store.errors import InputError, suggest
from ...store.reading import shown
from ..sampling import Sampling

Tell = Callable[[str], object]
# a request's arguments, by their number: without a document it is that of an unconditional likelihood
_ARGUMENTS = 6
_KNOWN = {"until", "max_new_tokens", "temperature", "do_sample", "top_p", "top_k", "seed"}
# settings that change nothing at these values, and change answers at any other
_ONLY = {"num_beams": (1, None), "repetition_penalty": (1, 1.0, None), "skip_special_tokens": (True, None)}
# how LLaVA's own code prepares pictures: `image_mode` says that here
_ELSEWHERE = {"image_aspect_ratio": "image_mode"}
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


@dataclass(frozen=True)
class Request:
    """One request: a text and a document whose pictures are opened when its turn comes.

    `setting`: what the task says of generation, or the continuation whose likelihood is asked for.
    """

    task: str
    doc_id: int
    context: str
    setting: Any
    document: Callable[[], Any]
    to_visual: Callable[[Any], Any]

    @property
    def where(self) -> str:
        """The request as messages name it."""
        return f"task {self.task}, document {self.doc_id}"

    def visuals(self) -> list[Any]:
        """Return what the document shows, as the task has it."""
        return list(self.to_visual(self.document()) or [])

    def continuation(self) -> str:
        """Return the text whose likelihood is asked for; the template has the space in front of it."""
        text = self.setting(self.document()) if callable(self.setting) else self.setting
        return str(text).lstrip(" ")


def read_request(instance: Any, documents: Mapping[str, Any]) -> Request:
    """Return what one of lmms-eval's instances asks; `documents`: by task, split and number.

    Raises:
        InputError: its arguments are not those of lmms-eval 0.7's simple models.
    """
    arguments = instance.args
    if len(arguments) == 2:
        raise InputError(
            f"task {instance.task_name}: the likelihood of a text without its question (acc_mutual_info) is not there; "
            "a model with pictures has no such prompt. Take the task's metric acc."
        )
    if len(arguments) != _ARGUMENTS:
        raise InputError(
            f"task {instance.task_name}: a request has {len(arguments)} arguments, and {_ARGUMENTS} are known: text, "
            "setting, pictures, document, task, split. This was written for lmms-eval 0.7."
        )
    context, setting, to_visual, doc_id, task, split = arguments
    return Request(str(task), doc_id, str(context), setting, lambda: documents[task][split][doc_id], to_visual)


def pictures_of(request: Request, pictures: Pictures) -> list[Image.Image]:
    """Return a request's pictures in RGB, as they show.

    Raises:
        InputError: it brings a video, a sound or something else than pictures. RefusedError: a picture that is too large,
            of another format than those of a pool, or damaged.
    """
    images = []
    for number, visual in enumerate(request.visuals(), 1):
        where = f"{request.where}, picture {number}"
        if not isinstance(visual, Image.Image):
            raise InputError(f"{where} is {_kind(visual)}: models here look at pictures, which lmms-eval has opened.")
        if visual.width * visual.height > MAX_PIXELS:
            size = f"{visual.width} × {visual.height} pixels, over {MAX_PIXELS:,}"
            raise RefusedError("image_too_large", f"{where} has {size}")
        if visual.format is not None and visual.format not in FORMATS:
            raise RefusedError("image_unreadable", f"{where} is {visual.format}, not one of {', '.join(FORMATS)}")
        try:
            visual.load()
            images.append(show(visual, pictures))
        except _DAMAGE as error:
            raise RefusedError("image_unreadable", f"{where} cannot be decoded: {error}") from error
    return images


def picture_hash(image: Image.Image) -> str:
    """Return what is the same of two pictures with the same pixels alone."""
    return sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()[:32]


def text_of(request: Request, count: int) -> str:
    """Return the text that is asked; without marks of pictures they go in front, as lmms-eval's own LLaVA has them."""
    if not count or IMAGE in request.context:
        return request.context
    return f"{' '.join([IMAGE] * count)}\n{request.context}"


def sampling_of(request: Request, number: int, longest: int, seed: int, tell: Tell) -> Sampling:
    """Return how an answer is generated; `number`: the request's, for a stream of draws of its own.

    Raises:
        InputError: the task says what is not known here, or what cannot be; names the task and the word.
    """
    asked = dict(request.setting or {})
    where = f"task {request.task}: generation_kwargs"
    for name, field in _ELSEWHERE.items():
        if name in asked:
            tell(f"{where} has {name}={asked.pop(name)!r}, which is not followed: --model_args {field}=… says it here.")
    for name, values in _ONLY.items():
        if name in asked and (value := asked.pop(name)) not in values:
            raise InputError(f"{where} has {name}={value!r}; only {values[0]!r} is there.")
    if stray := sorted(asked.keys() - _KNOWN):
        raise InputError(f"{where} has {stray[0]!r}, which is not known here{suggest(stray[0], _KNOWN)}")
    values: dict[str, Any] = {"max_new_tokens": asked.get("max_new_tokens") or longest, "stop": _stops(asked, where)}
    heat = _temperature(asked, where, tell)
    if heat:
        values |= {n: asked[n] for n in ("top_p", "top_k") if asked.get(n) is not None}
        values |= {"temperature": heat, "seed": (asked.get("seed") or seed) + number}
    return Sampling.parse(values, where)


def _temperature(asked: dict[str, Any], where: str, tell: Tell) -> float:
    """Return 0 for the likeliest tokens: `do_sample` decides, and the temperature where it is not named."""
    heat, draws = asked.get("temperature"), asked.get("do_sample")
    if draws is False:
        if heat:
            tell(f"{where} has do_sample=False and temperature={heat!r}: the likeliest tokens are taken.")
        return 0.0
    if draws and heat is None:
        return 1.0
    if draws and not heat:
        tell(f"{where} has do_sample=True and temperature={heat!r}: the likeliest tokens are taken.")
    return heat or 0.0


def _stops(asked: dict[str, Any], where: str) -> tuple[str, ...]:
    until = asked.get("until") or []
    texts = [until] if isinstance(until, str) else until
    if not isinstance(texts, (list, tuple)) or not all(isinstance(t, str) for t in texts):
        raise InputError(f"{where} has until={shown(until)}: a text, or a list of texts.")
    return tuple(dict.fromkeys(t for t in texts if t))


def _kind(visual: Any) -> str:
    if isinstance(visual, str):
        return f"a path ({shown(visual)}), as a video's is"
    if isinstance(visual, dict) and "array" in visual:
        return "a sound"
    return f"of type {type(visual).__name__}"
