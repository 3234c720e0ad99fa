"""One model that answers: benchmarks, chat, the server and judging all generate here.

A history of turns and pictures becomes a prompt (`encode`), prompts become a batch, a batch becomes answers (`reply`). Rows
of a batch may want different lengths, temperatures and stop texts, may be watched token by token, and may be given up.
Axes: B rows, T prompt tokens (padded on the left), S generated tokens.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from ..models.encoding import make_encoder
from ..models.load import Loaded, base_of
from ..models.registry import family_of
from ..pool.collate import collate
from ..pool.encode import Encoded, EncodeError
from ..pool.inputs import InputConfig
from ..pool.records import Record
from .sampling import Chooser, Sampling
from .stepper import Stepper, can_step
from .text_stream import first_stop

# told of each row's new token, by its place in the batch; False gives the row up
Watch = Callable[[int, int], bool]


@dataclass(frozen=True)
class Turn:
    """What one side said; `role` is human or gpt. A human's text holds `<image>` where a picture stands."""

    role: Literal["human", "gpt"]
    text: str


@dataclass(frozen=True)
class Reply:
    """An answer. `finish`: its end mark or stop text came, its length ran out, or it was given up.

    `tokens`: the generated ones, end mark included; `finite`: no logit of it was NaN or infinite.
    """

    text: str
    tokens: tuple[int, ...]
    finish: Literal["stop", "length", "given_up"]
    prompt_tokens: int
    finite: bool


class Generator:
    """A loaded checkpoint of any family (merged, adapters, MoReS), and how it is asked."""

    def __init__(self, loaded: Loaded, config: InputConfig) -> None:
        """Take a model on its device.

        Raises:
            InputError: its processor does not go with `config`'s template, pictures or length.
        """
        self.model, self.family = loaded.model, family_of(loaded.model)
        self.tokenizer = loaded.processor.tokenizer
        self.pad_id = int(self.tokenizer.pad_token_id or 0)
        self.encoder = make_encoder(
            loaded.processor, config.template, config.max_len, config.image_mode, config.pictures
        )
        self.device = next(self.model.parameters()).device
        text_config = base_of(self.model).config.get_text_config()
        self.positions = int(getattr(text_config, "max_position_embeddings", None) or sys.maxsize)
        self.ends = self._own_settings()
        # of graphs alone a step is faster than Hugging Face's
        steps = self.device.type == "cuda" and can_step(self.model, self.family)
        self.stepper = Stepper(self.model, self.family, self.pad_id, self.ends) if steps else None

    def encode(self, turns: Sequence[Turn], images: Sequence[Image.Image] = (), system: str = "") -> Encoded:
        """Return the prompt of a history that ends with a human's turn, its RGB pictures in the order of their marks.

        Raises:
            EncodeError: longer than `max_len`, other marks than pictures, turns that the template is not made for, or what
                is no text (bytes that are no UTF-8, half a surrogate pair).
        """
        prompt = self.prompt(turns, [i.size for i in images], system)
        reader = self.encoder.reader.among(len(images))
        return prompt.showing([reader.prepare(i) for i in images])

    def prompt(self, turns: Sequence[Turn], sizes: Sequence[tuple[int, int]] = (), system: str = "") -> Encoded:
        """Return the prompt of a history whose pictures have these sizes (width, height), without them: for whoever cannot
        hold all of them decoded (`encoder.reader.among(COUNT).prepare` makes each one small; `Encoded.showing` adds them).

        Raises:
            EncodeError: as `encode`.
        """
        _refuse_no_text([system, *(t.text for t in turns)])
        said = [{"from": t.role, "value": t.text} for t in turns]
        names = tuple(f"picture {i + 1}" for i in range(len(sizes)))
        record = Record(0, "chat", "chat", names, said, {"system": system} if system else {})
        try:
            return self.encoder.prompt(record, sizes=list(sizes), answers=len(turns) // 2)
        except EncodeError as error:
            raise EncodeError(str(error).removeprefix("record 0: ")) from error

    def reply(
        self, prompts: Sequence[Encoded], samplings: Sequence[Sampling], watch: Watch | None = None
    ) -> list[Reply]:
        """Return the answers to B prompts, which carry their pictures; `watch` is told of each token as it comes.

        An answer ends where the model has no positions left.
        """
        samplings = [self._within(s, p) for s, p in zip(samplings, prompts, strict=True)]
        inputs, chooser = self.inputs(prompts), Chooser(samplings)
        most, stepper = max(s.max_new_tokens for s in samplings), self.stepper
        ends = _Ends(samplings, self, 0 if stepper else inputs["input_ids"].shape[1], watch)
        search = stepper.search if stepper else self.generate
        new_BS = search(inputs, most, chooser, ends if ends.needed else None)
        rows = zip(new_BS.tolist(), prompts, samplings, chooser.bad(), strict=True)
        return [
            self._reply(tokens, len(prompt.input_ids), sampling, ends.of(i, tokens), not bad)
            for i, (tokens, prompt, sampling, bad) in enumerate(rows)
        ]

    def inputs(self, prompts: Sequence[Encoded]) -> dict[str, Any]:
        """Return a batch on the device, padded on the left: `input_ids`, `attention_mask`, `labels`, `media`.

        `pictures`: how many each row has; `image_owner` and `media_counts` as in `collate`.
        """
        batch = collate(prompts, self.pad_id, side="left")
        # bytes travel to the device, floats are made there
        batch = self.encoder.finish(batch, self.device)
        media = {n: v.to(self.model.dtype) if v.is_floating_point() else v for n, v in batch["media"].items()}
        return {k: batch[k].to(self.device) for k in ("input_ids", "attention_mask", "labels")} | {
            "media": media,
            "pictures": [len(p.media) for p in prompts],
            # some families' own `generate` takes pictures by row
            "image_owner": batch["image_owner"],
            "media_counts": batch["media_counts"],
        }

    def generate(
        self,
        inputs: dict[str, Any],
        max_new_tokens: int,
        chooser: LogitsProcessor | None = None,
        ends: StoppingCriteria | None = None,
    ) -> torch.Tensor:
        """Return the likeliest tokens of what `chooser` leaves over, [B, S], on the CPU; pads behind a row's end."""
        asked = self.family.generating(self.model, inputs)
        with torch.inference_mode():
            tokens_BT = self.model.generate(
                **asked,
                max_new_tokens=max_new_tokens,
                logits_processor=LogitsProcessorList([chooser] if chooser else []),
                stopping_criteria=StoppingCriteriaList([ends] if ends else []),
            )
        return tokens_BT[:, inputs["input_ids"].shape[1] :].cpu()

    def texts(self, new_BS: torch.Tensor) -> list[str]:
        """Return generated tokens as texts."""
        return [t.strip() for t in self.tokenizer.batch_decode(new_BS, skip_special_tokens=True)]

    def text(self, tokens: Sequence[int]) -> str:
        """Return generated tokens as they read, outer space included."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def _within(self, sampling: Sampling, prompt: Encoded) -> Sampling:
        room = self.positions - len(prompt.input_ids)
        if room < 1:
            raise EncodeError(f"the prompt has {len(prompt.input_ids)} tokens, the model {self.positions} positions.")
        return sampling if sampling.max_new_tokens <= room else sampling.model_copy(update={"max_new_tokens": room})

    def _reply(self, row: list[int], prompt_tokens: int, sampling: Sampling, end: "_End", finite: bool) -> Reply:
        tokens = row[: end.tokens]
        text = self.text(tokens)
        cut = first_stop(text, sampling.stop) if end.why == "text" else None
        finish: Literal["stop", "length", "given_up"] = "stop" if end.why in ("mark", "text") else end.why
        return Reply(text[:cut].strip(), tuple(tokens), finish, prompt_tokens, finite)

    def _own_settings(self) -> list[int]:
        """Replace what the checkpoint says about sampling, which would be merged into ours; return the end marks."""
        base = base_of(self.model)
        own = getattr(base.generation_config, "eos_token_id", None)
        ends = {int(i) for i in (own if isinstance(own, list) else [own]) if i is not None}
        # a template's own mark, where it is not the tokenizer's end
        ends |= {int(i) for i in (self.tokenizer.eos_token_id, self.encoder.end_id) if i is not None}
        base.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(ends) or None, pad_token_id=self.pad_id
        )
        return sorted(ends)


def _refuse_no_text(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(
                f"{text.encode(errors='replace').decode()!r:.80} is no UTF-8 text: see its character {error.start + 1:,}."
            ) from error


@dataclass(frozen=True)
class _End:
    """Where a row ended: after so many tokens, and why."""

    tokens: int
    why: Literal["mark", "text", "length", "given_up"]


class _Ends(StoppingCriteria):
    """Ends each row by itself: its end mark, its own length, its stop texts, or because nobody waits for it any more."""

    def __init__(self, samplings: Sequence[Sampling], generator: Generator, prompt: int, watch: Watch | None) -> None:
        self._samplings, self._generator, self._prompt, self._watch = samplings, generator, prompt, watch
        self._ends: list[_End | None] = [None] * len(samplings)
        # one length for all, no stop texts: the search ends by itself
        lengths = {s.max_new_tokens for s in samplings}
        self.needed = watch is not None or len(lengths) > 1 or any(s.stop for s in samplings)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # type: ignore[override]
        """Return which rows [B] are over."""
        for i, tokens in enumerate(input_ids[:, self._prompt :].tolist()):
            if self._ends[i] is None:
                self._ends[i] = self._end(i, tokens)
        return torch.tensor([end is not None for end in self._ends], device=input_ids.device)

    def of(self, i: int, tokens: list[int]) -> _End:
        """Return where a row's generated tokens end, when all is over."""
        if (end := self._ends[i]) is not None:
            return end
        marks = (n for n, token in enumerate(tokens, 1) if token in self._generator.ends)
        last = next(marks, None)
        return _End(len(tokens), "length") if last is None else _End(last, "mark")

    def _end(self, i: int, tokens: list[int]) -> _End | None:
        sampling = self._samplings[i]
        waited_for = self._watch is None or self._watch(i, tokens[-1])
        if tokens[-1] in self._generator.ends:
            return _End(len(tokens), "mark")
        if sampling.stop:
            # a stop text of n bytes lies in the last n tokens, and a few before them read as they do within the row
            tail = max(len(s.encode()) for s in sampling.stop) + 4
            if first_stop(self._generator.text(tokens[-tail:]), sampling.stop) is not None:
                return _End(len(tokens), "text")
        if len(tokens) >= sampling.max_new_tokens:
            return _End(len(tokens), "length")
        return None if waited_for else _End(len(tokens), "given_up")
