"""What an audit asks."""

from __future__ import annotations

from dataclasses import dataclass

from vlmend.errors import BadParameter

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What to ask: the same plan on the same target gives the same scorecard.

    Attributes:
        suites: Names of suites, or of axes (`safety` is every suite of that axis).
        data: Labelled requests as `data.layouts.read_data` names them, or the built-in data.
        limit: Requests of each kind, or all.
        max_new_tokens: Longest reply, or each suite's own.
        seed: Of draws and resampling; epoch k draws with seed + k.
        temperature: 0 is greedy.
        epochs: How often each request is asked; more than once needs a temperature.
    """

    suites: tuple[str, ...] = ("safety", "utility")
    data: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    seed: int = 0
    temperature: float = 0.0
    epochs: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.temperature < 0 or (self.epochs > 1 and self.temperature == 0):
            raise BadParameter(
                f"{self.epochs} epochs at temperature {self.temperature:g} cannot be asked.",
                "Epochs count from 1; asking again without a temperature gives the same replies.",
            )
