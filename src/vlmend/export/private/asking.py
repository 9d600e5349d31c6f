"""From pictures to named pictures by private scores: what `vlmend score` does at the party that asks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmend.core.examples import Example
from vlmend.core.halving import by_halves
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.errors import FAILURES, BadData, BadParameter, VlmendError
from vlmend.export.private.ckks import Keys
from vlmend.export.private.head import KEY, SERVER, Asker, read_head
from vlmend.export.private.scoring import PARTIES, Scored, over_parties, over_socket, plain_beside, take_part
from vlmend.models.dual.encoder import DualEncoder

__all__ = ["Answers", "ask"]

BATCH = 64
"""Pictures that are embedded at once."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Pictures named by private scores.

    Attributes:
        named: Of each row that could be embedded, its id, the class with the largest score, and that score.
        left_out: Of each that could not, its id and why.
        agreement: Share whose largest score is of the same class in the clear, 95 % interval; None where the head is
            elsewhere, so that nobody here can tell.
        apart: Largest difference of a private score from the plain one; None as above.
        accuracy: Share named as their first answer says, 95 % interval; None without answers.
        found: Scores, seconds and bytes.
    """

    named: tuple[tuple[str, str, float], ...]
    left_out: tuple[tuple[str, str], ...]
    agreement: Interval | None
    apart: float | None
    accuracy: Interval | None
    found: Scored

    @property
    def values(self) -> dict[str, Any]:
        """As JSON values: seconds and bytes are medians and means of one query."""
        count = len(self.named)
        return {
            "n": count, "named": [dict(zip(("id", "name", "score"), one, strict=True)) for one in self.named],
            "left_out": dict(self.left_out), "agreement": _value(self.agreement), "apart": self.apart,
            "accuracy": _value(self.accuracy), "seconds": statistics.median(self.found.seconds),
            "bytes_sent": self.found.sent / count, "bytes_received": self.found.received / count,
            "bytes_once": self.found.once,
        }  # fmt: skip


def ask(
    view: DualEncoder, rows: Sequence[Example], folder: Path, asker: Asker, *, server: str | None = None,
    key: Path | None = None, parties: Sequence[str] = (), tick: Callable[[int], object] = lambda done: None,
) -> Answers:  # fmt: skip
    """Name pictures by the private scores of an exported head.

    Args:
        view: The model and mends that it was exported for.
        rows: With pictures; those that cannot be read are left out and named.
        folder: The exported one; its server half is read where no server and no parties are named.
        asker: Its client half.
        server: HOST:PORT of a server of encrypted scores; one is started here unless given.
        key: File with the client's keys; beside the client's half, made at the first use, unless given.
        parties: HOST:PORT of three parties; all three run here unless given.
        tick: Told how many are scored.

    Raises:
        MendMismatch: The view is another one.
        BadData: No picture can be read, or the head is not there.
        BadParameter: Servers of the one way for a head of the other.
        RunProblem: A server, a party or a key fails.
        MissingExtra: The library is not installed.
    """
    asker.check(view)
    _check_way(asker, server, key, parties)
    embedded = _embedded(view, [row for row in rows if row.image is not None])
    good = [(row, one) for row, one in embedded if isinstance(one, Tensor)]
    if not good:
        raise BadData("None of these rows has a picture that can be read.", "Pass rows with image.")
    embeddings = torch.stack([one for _, one in good])
    classes = len(asker.names)
    if asker.way == "he":
        found = over_socket(embeddings, _keys(key, folder), server, folder, tick)
    elif parties:
        found = take_part(0, parties, len(good), classes, asker.width, embeddings=embeddings)
    else:
        found = over_parties(embeddings, classes, folder)
    tick(len(good))
    best = found.scores.max(1)
    said = [asker.names[place] for place in best.indices.tolist()]
    told = [name == row.answers[0] for (row, _), name in zip(good, said, strict=True) if row.answers]
    same, apart = None, None
    if (folder / SERVER).exists():
        equal, apart = plain_beside(found, read_head(folder), embeddings)
        same = wilson(sum(equal), len(equal))
    return Answers(
        tuple((row.id, name, score) for (row, _), name, score in zip(good, said, best.values.tolist(), strict=True)),
        tuple((row.id, one) for row, one in embedded if isinstance(one, str)),
        same, apart, wilson(sum(told), len(told)) if told else None, found,
    )  # fmt: skip


def _check_way(asker: Asker, server: str | None, key: Path | None, parties: Sequence[str]) -> None:
    if (asker.way == "mpc" and (server or key)) or (asker.way == "he" and parties):
        raise BadParameter(
            f"This head was exported as {asker.way}.", "--server and --key are for he, --parties is for mpc."
        )
    if parties and len(parties) != PARTIES:
        raise BadParameter(f"{len(parties)} parties are named.", "Name who asks, who holds the head, and who helps.")


def _embedded(view: DualEncoder, rows: Sequence[Example]) -> list[tuple[Example, Tensor | str]]:
    """Each row's embedding, or why there is none."""

    def work(batch: Sequence[Example]) -> Sequence[Tensor | str]:
        return list(view.embed_images([row.image for row in batch if row.image is not None]))

    def alone(row: Example, problem: Exception) -> Tensor | str:
        del row
        return problem.message if isinstance(problem, VlmendError) else repr(problem)

    batches = [rows[place : place + BATCH] for place in range(0, len(rows), BATCH)]
    known = (VlmendError, *FAILURES)
    found = [one for batch in batches for one in by_halves(batch, work, lambda p: isinstance(p, known), alone)]
    return list(zip(rows, found, strict=True))


def _keys(file: Path | None, folder: Path) -> Keys:
    own = folder / KEY
    if file is not None or own.exists():
        return Keys.at(file or own)
    keys = Keys.new()
    keys.save(own)
    return keys


def _value(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()
