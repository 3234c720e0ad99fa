"""Stretches of text between special tokens → ids, as a SentencePiece tokenizer of LLaVA's time gives them.

LLaMA's tokenizers put a space in front of a text. SentencePiece always does; Hugging Face's Metaspace does not where a
space stands there already, so such a text gets a second one here. Tokenizers saved with `legacy: false` (scheme "first")
put none behind a special token, only at the beginning and, since LLaVA tokenises what follows a picture anew, behind one.
Other tokenizers (byte-level ones) know no such space.
"""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

# ids of a text, and where each token begins and ends in it
Tokens = tuple[list[int], list[tuple[int, int]]]
# how many texts are kept tokenised, the longest of them in characters: a template's words come with every record
_KEPT, _LONGEST = 4096, 400


class Stretches:
    """Tokenises texts without special tokens, those that they spell read as text."""

    def __init__(self, tokenizer: Any, as_sentencepiece: bool = True) -> None:
        """`as_sentencepiece`: as LLaVA's tokenizer; without it, as Hugging Face's own does a whole row."""
        self.tokenizer = tokenizer
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        metaspace = _metaspace(state.get("pre_tokenizer"))
        scheme = metaspace["prepend_scheme"] if metaspace else "never"
        self.spaced = as_sentencepiece and scheme in ("always", "first")
        self._kept: dict[tuple[str, bool], Tokens] = {}
        self._bare: Tokenizer | None = None
        if metaspace and scheme == "first":
            metaspace["prepend_scheme"] = "never"
            self._bare = Tokenizer.from_str(json.dumps(state))
            self._bare.no_truncation()
            self._bare.encode_special_tokens = True

    def tokens(self, texts: Sequence[str], behind_token: Sequence[bool]) -> list[Tokens]:
        """Return each text's tokens, not to be changed; `behind_token`: a special token, no picture, stands before it."""
        wanted = list(zip(texts, behind_token, strict=True))
        unknown = [key for key in dict.fromkeys(wanted) if key not in self._kept]
        new = dict(zip(unknown, self._tokenised(*zip(*unknown)))) if unknown else {}
        for key, tokens in new.items():
            if len(self._kept) < _KEPT and len(key[0]) <= _LONGEST:  # full means full: what is frequent comes early
                self._kept[key] = tokens
        return [new[key] if key in new else self._kept[key] for key in wanted]

    def _tokenised(self, texts: Sequence[str], behind_token: Sequence[bool]) -> list[Tokens]:
        out: list[Tokens] = [([], [])] * len(texts)
        bare = [i for i, t in enumerate(texts) if t and behind_token[i] and self._bare is not None]
        rest = [i for i, t in enumerate(texts) if t and (not behind_token[i] or self._bare is None)]
        if bare and self._bare is not None:
            for i, encoding in zip(bare, self._bare.encode_batch([texts[i] for i in bare], add_special_tokens=False)):
                out[i] = (encoding.ids, encoding.offsets)
        if rest:
            more = {i: int(self.spaced and texts[i].startswith(" ") and not behind_token[i]) for i in rest}
            done = self.tokenizer(
                [" " * more[i] + texts[i] for i in rest],
                add_special_tokens=False,
                return_attention_mask=False,
                return_offsets_mapping=True,
                split_special_tokens=True,
                verbose=False,
            )
            for i, ids, places in zip(rest, done["input_ids"], done["offset_mapping"], strict=True):
                # a space of ours has no place in the text
                out[i] = (ids, [(max(0, a - more[i]), max(0, b - more[i])) for a, b in places] if more[i] else places)
        return out


def _metaspace(pre_tokenizer: Any) -> dict[str, Any] | None:
    """Return the settings of a Metaspace in a tokenizer's state, alone or in a sequence."""
    if not isinstance(pre_tokenizer, dict):
        return None
    if pre_tokenizer.get("type") == "Metaspace":
        return pre_tokenizer
    steps = pre_tokenizer.get("pretokenizers") or []
    return next((settings for settings in map(_metaspace, steps) if settings is not None), None)
