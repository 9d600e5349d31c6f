"""What was measured of a mend before it is exported, as a checkpoint's card takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmend.errors import UsageError

__all__ = ["Proof"]


@dataclass(frozen=True)
class Proof:
    """Two runs, of a model as it is and mended.

    Attributes:
        card: Markdown: what was measured before and after.
        records: The same as the hub's `.eval_results`, YAML; empty where the data are not on the hub.
        base: Fingerprint of the model of the first run.
        model, mends: Fingerprint of the model of the second run, and digests of its mends.
    """

    card: str
    records: str
    base: str
    model: str
    mends: tuple[str, ...]

    def check(self, base: str, mends: Sequence[str], checkpoint: str, *, always: bool) -> None:
        """Refuse what was measured of something else.

        Args:
            base, mends: Fingerprint of the model that is exported, and digests of its mends.
            checkpoint: Fingerprint of what will be written.
            always: Whether the checkpoint edits requests that the mend with hooks leaves alone.

        Raises:
            UsageError: A run is of another model or other mends, or says nothing about this checkpoint.
        """
        if self.base != base:
            raise UsageError("The run before is of another model.", "Audit this model as it is, and pass that run.")
        if checkpoint == base:
            raise UsageError(
                "The mends change nothing: the checkpoint is the base.", "Export without runs, or fit a mend that acts."
            )
        if (self.model, self.mends) == (checkpoint, ()):
            return
        if (self.model, self.mends) != (base, tuple(mends)):
            raise UsageError(
                "The run after is of another model, or of other mends.",
                "Audit this model with these mends, in this order.",
            )
        if always:
            raise UsageError(
                "The run after was made with hooks, which leave requests alone that this checkpoint edits too.",
                "Export without runs, audit the checkpoint, and export again with that run as --after.",
            )
