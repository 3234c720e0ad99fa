"""FeatureKey: what a feature depends on, written in every shard's footer and compared by every reader."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import InputError
from .files import digest
from .reading import as_kind, parse_json

FOOTER = b"vinnow.feature_key"


@dataclass(frozen=True, kw_only=True)
class FeatureKey:
    """What a feature vector depends on; two vectors may be compared only under equal keys.

    `pool` and `model` are content digests. `recipe` is canonical JSON of the maths (projection and its seed, token
    mask, mode, preprocessing), made by `recipe_text`; never a host, a path or a device. `optimizer` digests the Adam
    moments that a gradient was preconditioned with ("" for none): it changes from step to step of one set.
    """

    kind: str
    dim: int
    pool: str
    model: str
    checkpoint: int
    recipe: str
    optimizer: str = ""

    def to_metadata(self) -> dict[bytes, bytes]:
        """Return the Parquet footer entry."""
        return {FOOTER: json.dumps(asdict(self), sort_keys=True).encode()}

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None, what: str) -> "FeatureKey":
        """Read the key back; `InputError` names the file when its footer has none, or something else."""
        if not metadata or FOOTER not in metadata:
            raise InputError(f"{what}: no feature key in the footer: this file was not written by vinnow.")
        return as_kind(parse_json(metadata[FOOTER], f"{what}: its footer"), cls, what, "feature part (by its footer)")

    def facts(self) -> dict[str, Any]:
        """Return the recipe's fields.

        Raises:
            InputError: it is no canonical JSON.
        """
        what = f"the recipe of {self.kind} features at step {self.checkpoint}"
        return as_kind(parse_json(self.recipe, what), dict[str, Any], what, "recipe", "Make the features anew.")

    def differences(self, other: "FeatureKey") -> list[str]:
        """List the fields that differ, one readable line each."""
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return [f"{name}: {mine!r} against {theirs!r}" for name, mine, theirs in pairs if mine != theirs]

    def digest(self) -> str:
        """Return 16 hexadecimal digits that name this key."""
        return digest(json.dumps(asdict(self), sort_keys=True))


def recipe_text(**facts: Any) -> str:
    """Return canonical JSON of the facts that the maths depends on."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))
