"""Requests of lmms-eval → answers and likelihoods by the one `Generator`, whatever lmms-eval's own classes are.

Requests are sorted by length, windows of them are decoded while the window before is answered. Axes: B rows, T tokens,
L label positions, V words.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from ...pool.batching import token_batches
from ...pool.encode import IGNORE, Encoded, EncodeError
from ...pool.records import Record
from ...pool.refusals import RefusedError
from ...store.errors import InputError
from ...store.usage import by_reason
from ..generator import Generator, Reply, Turn
from ..sampling import Sampling
from .config import LmmsConfig
from .requests import Request, Tell, picture_hash, pictures_of, sampling_of, text_of

# of a request that could not be asked: no answer, and no likelihood
UNASKED = Reply("", (), "given_up", 0, True)
UNLIKELY = (float("inf"), False)
_OVERFLOW = "the model's logits became NaN or infinite: its weights, or this precision, cannot answer it"
# of the refusals, those that are told one by one; the rest is counted
_TOLD = 20


@dataclass(frozen=True)
class _Row:
    """A request that can be asked: its place in the list, its prompt with pictures, and how long its answer may be."""

    place: int
    prompt: Encoded
    sampling: Sampling


class Asking:
    """One model, asked lists of requests; `tell` hears what a reader must know, `step` how many requests are done."""

    def __init__(
        self, generator: Generator, config: LmmsConfig, tell: Tell = print, step: Callable[[int], object] = int
    ) -> None:
        self.generator, self.config, self.step = generator, config, step
        self._tell, self._told = tell, set[str]()
        # of each task and document, its first picture's hash, where the config wants to know
        self.pictures = dict[tuple[str, int], str]()

    def answers(self, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies in the requests' order; "" for what cannot be asked, which is told.

        Raises:
            InputError: a task says what is not known here, brings no pictures, or more than `max_refused` cannot be asked.
        """
        longest, seed = self.config.max_new_tokens, self.config.seed
        # all of them before anything is generated
        samplings = [sampling_of(r, i, longest, seed, self._once) for i, r in enumerate(requests)]

        def prepare(place: int) -> _Row:
            request = requests[place]
            images = self._images(request)
            prompt = self.generator.encode([Turn("human", text_of(request, len(images)))], images)
            return _Row(place, prompt, samplings[place])

        def answer(rows: list[_Row]) -> list[Reply | RefusedError]:
            replies = self.generator.reply([r.prompt for r in rows], [r.sampling for r in rows])
            return [r if r.finite else RefusedError("not_finite", _OVERFLOW) for r in replies]

        return self._all(requests, prepare, answer, UNASKED)

    def losses(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """Return of each continuation (mean loss of its tokens in nats, whether greedy decoding would say it).

        The template's end mark is one of the tokens. It is a loss, not a log-probability: so lmms-eval's own LLaVA has it,
        and its evaluator takes the least. One that cannot be asked is infinite, and told.

        Raises: as `answers`.
        """

        def prepare(place: int) -> _Row:
            return _Row(place, self._with_answer(requests[place]), Sampling(max_new_tokens=1))

        def measure(rows: list[_Row]) -> list[tuple[float, bool] | RefusedError]:
            sound = [(loss, greedy, loss == loss and loss < UNLIKELY[0]) for loss, greedy in self._measured(rows)]
            return [(loss, greedy) if ok else RefusedError("not_finite", _OVERFLOW) for loss, greedy, ok in sound]

        return self._all(requests, prepare, measure, UNLIKELY)

    def _all(
        self,
        requests: Sequence[Request],
        prepare: Callable[[int], _Row],
        work: Callable[[list[_Row]], Sequence[Any]],
        unasked: Any,
    ) -> list[Any]:
        """Return what `work` says of each request, in order; `unasked` for what `prepare` or `work` refuses."""
        results, refused = [unasked] * len(requests), Counter[str]()
        for ready in self._windows(requests, prepare):
            rows = [row for row in ready if isinstance(row, _Row)]
            lost = [row for row in ready if not isinstance(row, _Row)]
            lengths = [len(r.prompt.input_ids) + r.sampling.max_new_tokens for r in rows]
            for batch in token_batches(lengths, self.config.token_budget, self.config.rows):
                asked = [rows[i] for i in batch]
                for row, result in zip(asked, work(asked), strict=True):
                    if isinstance(result, RefusedError):
                        lost.append((row.place, result))
                    else:
                        results[row.place] = result
            for place, error in lost:
                refused[error.reason] += 1
                if refused.total() <= _TOLD:
                    self._tell(f"{requests[place].where}, cannot be asked ({error.reason}): {error}")
            self._check(refused, len(requests))
            self.step(len(ready))
        if refused:
            self._tell(f"{_lost(refused, len(requests))}: each was answered with an empty text, or an infinite loss.")
        return results

    def _check(self, refused: Counter[str], total: int) -> None:
        """Raises: InputError: more than `max_refused` of all requests were refused."""
        if refused.total() > self.config.max_refused * total:
            most = f"over max_refused ({self.config.max_refused:.1%})"
            raise InputError(
                f"{_lost(refused, total)}, {most}. Mend them, or --model_args max_refused=… accepts the loss."
            )

    def _windows(
        self, requests: Sequence[Request], prepare: Callable[[int], _Row]
    ) -> Iterator[list[_Row | tuple[int, RefusedError | EncodeError]]]:
        """Yield requests of like length, prepared one window ahead in a thread of its own."""
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].context), i))
        size = 2 * self.config.rows
        windows = [order[i : i + size] for i in range(0, len(order), size)]

        def prepared(places: Iterable[int]) -> list[_Row | tuple[int, RefusedError | EncodeError]]:
            return [_tried(prepare, place) for place in places]

        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(prepared, windows[0]) if windows else None
            for places in [*windows[1:], []]:
                if waiting is not None:
                    ready = waiting.result()
                    waiting = ahead.submit(prepared, places) if places else None
                    yield ready

    def _images(self, request: Request) -> list[Image.Image]:
        images = pictures_of(request, self.config.pictures)
        if images and self.config.clusters:
            self.pictures[request.task, request.doc_id] = picture_hash(images[0])
        return images

    def _with_answer(self, request: Request) -> Encoded:
        images, encoder = self._images(request), self.generator.encoder
        said = [text_of(request, len(images)), request.continuation()]
        turns = [{"from": side, "value": text} for side, text in zip(("human", "gpt"), said, strict=True)]
        names = tuple(f"picture {i + 1}" for i in range(len(images)))
        row = encoder.encode(Record(0, "lmms-eval", request.task, names, turns), [i.size for i in images])
        if row.cut or not (row.labels != IGNORE).any():
            raise EncodeError(f"its continuation is empty, or ends behind max_len ({encoder.max_len} tokens).")
        reader = encoder.reader.among(len(images))
        return row.showing([reader.prepare(i) for i in images])

    @torch.inference_mode()
    def _measured(self, rows: list[_Row]) -> list[tuple[float, bool]]:
        generator = self.generator
        inputs = generator.inputs([r.prompt for r in rows])
        # position t says what stands at t + 1
        labels_BT = inputs["labels"][:, 1:]
        logits_BTV = generator.model(**generator.family.generating(generator.model, inputs)).logits[:, :-1]
        measured = []
        for labels_T, logits_TV in zip(labels_BT, logits_BTV, strict=True):
            trained_T = labels_T != IGNORE
            labels_L, logits_LV = labels_T[trained_T], logits_TV[trained_T].float()
            greedy = bool((logits_LV.argmax(-1) == labels_L).all())
            measured.append((float(functional.cross_entropy(logits_LV, labels_L)), greedy))
        return measured

    def _once(self, text: str) -> None:
        """Tell what holds for all requests of a task once."""
        if text not in self._told:
            self._told.add(text)
            self._tell(text)


def _tried(prepare: Callable[[int], _Row], place: int) -> _Row | tuple[int, RefusedError | EncodeError]:
    try:
        return prepare(place)
    except (RefusedError, EncodeError) as error:
        return place, error


def _lost(refused: Counter[str], total: int) -> str:
    return f"{refused.total():,} of {total:,} requests could not be asked ({by_reason(refused)})"
