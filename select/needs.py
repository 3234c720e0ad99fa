"""What a selector reads: features, targets, fields of the source records."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType

from ..store.errors import InputError, suggest


@dataclass(frozen=True)
class Needs:
    """A selector's needs; the View refuses all else.

    `features`: by name, which is a kind's where a run makes one of it. `targets`: whether it reads the same features of a
    target set. `fields`: of the source records. `reads`: need → the feature that it means, where that has another name; the
    run's business, not the selector's.
    """

    features: tuple[str, ...] = ()
    targets: bool = False
    fields: tuple[str, ...] = ()
    _: KW_ONLY
    reads: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def called(self, reads: Mapping[str, str]) -> "Needs":
        """Return the same needs, met by features of other names.

        Raises:
            InputError: it names a need that is none.
        """
        for need in reads:
            if need not in self.features:
                raise InputError(f"reads: the selector needs no {need!r} features{suggest(need, self.features)}")
        return replace(self, reads=MappingProxyType(dict(reads)))

    def name_of(self, need: str) -> str:
        """Return the name of the feature that meets a need."""
        return self.reads.get(need, need)

    @property
    def names(self) -> list[str]:
        """The names of the features that are read, each once."""
        return list(dict.fromkeys(map(self.name_of, self.features)))

    def words(self) -> list[str]:
        """Return the needs as a list to be shown."""
        return [*self.features, *(["targets"] if self.targets else []), *(f"extra:{n}" for n in self.fields)]
