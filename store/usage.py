"""What a stage used of its rows and what it refused: one wording, one limit, for every stage.

A stage that lost many of its rows did another job than the one it was given, so it fails; one that used none always does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import InputError

MAX_REFUSED = 0.05
# what the stage cannot use by its nature, or was asked to leave out: told, and no loss
EXPECTED = frozenset({"no_image", "no_question", "duplicate"})
# what may be otherwise at the next try although pool, model and config are the same: the picture's file, an endpoint
TRY_AGAIN = frozenset(
    {
        "image_missing",
        "image_not_a_file",
        "image_empty",
        "image_truncated",
        "image_unreadable",
        "image_changed",
        "image_too_large",
        "image_outside_root",
        "no_answer",
        "under_way",
    }
)


@dataclass(frozen=True)
class Usage:
    """Rows used, rows refused by reason, and where the refused ones are listed (a file or folder)."""

    used: int
    refused: Mapping[str, int]
    listed: str

    @property
    def lost(self) -> float:
        """The share of rows that were refused for another reason than the expected ones, 0 to 1."""
        lost = sum(n for reason, n in self.refused.items() if reason not in EXPECTED)
        return lost / max(1, self.used + lost)

    def line(self) -> str:
        """Return one line for the terminal: `380 rows used, 20 refused (image_missing 20; listed in PATH)`."""
        total = sum(self.refused.values())
        if not total:
            return f"{self.used:,} rows used, none refused"
        return f"{self.used:,} rows used, {total:,} refused ({by_reason(self.refused)}; listed in {self.listed})"

    def check(self, stage: str, max_refused: float) -> None:
        """Refuse what is no longer the job that was given.

        Raises:
            InputError: no row was used, or more than the share `max_refused` was lost; names reasons and the list.
        """
        if not self.used:
            why = f"{by_reason(self.refused)}; listed in {self.listed}" if self.refused else "there were none"
            raise InputError(f"{stage}: not one row could be used ({why}).")
        if self.lost > max_refused:
            raise InputError(
                f"{stage}: {self.lost:.1%} of the rows were refused, over max_refused ({max_refused:.1%}): "
                f"{by_reason(self.refused)}; listed in {self.listed}. Mend them, or accept the loss with a larger "
                "max_refused."
            )


def by_reason(refused: Mapping[str, int]) -> str:
    """Return `image_missing 20, bad_role 1`: the commonest reason first."""
    ranked = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {n:,}" for reason, n in ranked if n)
