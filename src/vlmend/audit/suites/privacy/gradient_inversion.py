"""privacy/gradient_inversion: can a server rebuild a client's pairs from the gradient that it shares of them?

Of each pair one gradient is shared, of a dual encoder or of a model that learns what to reply: as it is, with noise, or
as the sum over several clients. Patches and words come back by a closed form, and from adapters alone by matching
gradients (`training.inversion`). The attacker knows the model and public pairs, and puts these through the same arm to
choose how hard to pull towards their mean.

Lu et al., CVPR 2022 (APRIL); Zhu et al. 2019 (DLG); Geiping et al. 2020.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from vlmend.audit.clients import Client, client_of
from vlmend.audit.means import FLOOR, mean_row
from vlmend.audit.separating import cluster_of, pairs_of, words_of
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.reconstruction import picked_out, psnr
from vlmend.core.splits import Split, word_fraction
from vlmend.core.targets import Access, ChatWeights, DualWeights, Kind, Pixels, problem_of
from vlmend.errors import BadData, MissingExtra, ModelProblem
from vlmend.pictures.galleries import PHOTO, object_pictures
from vlmend.training.batches import row_of
from vlmend.training.inversion import Inside, Shared, inside, matched, noised, rebuilt, shared, summed, words_used

__all__ = ["ARMS", "SUITE", "Arm", "GradientInversion", "Room"]

VICTIMS, PUBLIC = 24, 64
"""Pairs that are attacked unless a limit says otherwise, and pairs that everybody knows."""

TRIED = 4
"""Public pairs on which the attacker chooses the ridge of an arm."""

RIDGES = (0.0, *(10.0**power for power in range(-6, 5)))

NOISES = ("0.00001", "0.0001", "0.001", "0.01", "0.1")
"""Deviation of the noise on each number, in lengths of the whole gradient: the noise multiplier of private training."""

ADAPTERS, BATCH, STEPS = "adapters_of_8", 8, 30
"""The arm of matching: pairs in a batch, steps of the attack."""

MEAN, ANOTHER = "mean_picture", "another_picture"

VALUES: Mapping[str, tuple[Unit, Better]] = {
    "psnr": ("number", "lower"), "picked_out": ("share", "lower"), "words_found": ("share", "lower"),
    "words_right": ("share", "lower"),
}  # fmt: skip

SAYS = {("psnr", "one_pair"): "lets pictures be rebuilt from the gradient of their pair at {value} dB"}

LEFT_OUT = "a client trains the bare model, without mends: audit that one"
NO_PATCHES = "its image tower has no patches with learnt places, so the closed form does not hold"


@dataclass(frozen=True)
class Arm:
    """What a server sees: the sum of the gradients of so many clients, each of one pair, with noise."""

    name: str
    clients: int = 1
    noise: float = 0.0


ARMS = (
    Arm("one_pair"), *(Arm(f"noise_{noise}", noise=float(noise)) for noise in NOISES), Arm("sum_of_2", 2),
    Arm("sum_of_8", 8),
)  # fmt: skip


class Room:
    """A client's model, what everybody knows, and what the attacker makes of it."""

    def __init__(self, subject: DualWeights | ChatWeights, public: Sequence[Example], seed: int) -> None:
        self.public, self.seed = public, seed
        self.client: Client = client_of(subject, "weights", seed)
        self.held: Inside | None = inside(self.client.twin.model, self.client.vision)
        known = self.pixels(public)
        self.pictures = known.values
        self._one = replace(known, values=known.values[:1], black=known.black[:1], span=known.span[:1])
        self.mean = self.pictures.mean(0)
        self._kept: dict[str, Shared] = {}

    @cached_property
    def common(self) -> set[int]:
        """Tokens of at least half of the public texts, which tell nothing of a pair."""
        each = [self.client.tokens(row) for row in self.public]
        return {token for token in set[int]().union(*each) if 2 * sum(token in one for one in each) >= len(each)}

    def pixels(self, rows: Sequence[Example]) -> Pixels:
        """Their pictures, 0 to 1."""
        return self.client.pixels(rows)

    def of_one(self, row: Example) -> Shared:
        """The gradient of one pair."""
        assert self.held is not None
        if row.id not in self._kept:
            loss = self.client.loss([row], self.pixels([row]))
            self._kept[row.id] = shared(loss, self.client.twin.parameters, self.held)
        return self._kept[row.id]

    def seen(self, row: Example, arm: Arm) -> Shared:
        """What the server sees where this pair is one of the arm's; the others are public ones, drawn for it."""
        own = _number(f"{self.seed}:{arm.name}:{row.id}")
        rest = [one for one in self.public[TRIED:] if one.id != row.id]
        others = [rest[(own + k) % len(rest)] for k in range(arm.clients - 1)]
        total = summed([self.of_one(one) for one in (row, *others)]) if others else self.of_one(row)
        return noised(total, arm.noise, own) if arm.noise else total

    def picture(self, seen: Shared, ridge: float) -> Tensor:
        """The closed form's picture."""
        assert self.held is not None
        return rebuilt(seen, self._one, self.held.patches.shape[-1], self.mean, ridge)

    def ridge(self, arm: Arm) -> float:
        """The pull with which public pairs that go through the arm come out best."""
        tried = [(self.seen(row, arm), self.pictures[k]) for k, row in enumerate(self.public[:TRIED])]
        found = [sum(psnr(*_arrays(self.picture(seen, one), true)) for seen, true in tried) for one in RIDGES]
        return RIDGES[int(np.argmax(found))]


@dataclass(frozen=True)
class GradientInversion(SampleSuite[DualWeights | ChatWeights]):
    """PSNR of rebuilt pictures, whether they pick out theirs, and words, by what the client shares.

    Attributes:
        steps: Of matching.
    """

    name: ClassVar[str] = "privacy/gradient_inversion"
    axis: ClassVar[Axis] = "privacy"
    works_on: ClassVar[Kind | tuple[Kind, ...]] = ("chat", "dual")
    needs: ClassVar[Access] = "weights"
    about: ClassVar[str] = "pictures and words rebuilt from a gradient that is shared of them"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2}

    steps: int = STEPS

    def applies(self, data: Dataset) -> bool:
        return any(self.fits(data, kind) for kind in ("chat", "dual"))

    def fits(self, data: Dataset, kind: Kind) -> bool:
        return len(_learnable(data, kind)) >= 4

    def sample_data(self) -> Dataset | None:
        rows = (Example(str(k), image=noise_image(16, k), caption=f"thing {k}") for k in range(24))
        return Dataset("pairs", tuple(rows))

    def samples(
        self, subject: DualWeights | ChatWeights, data: Dataset | None, limit: int | None, *, seed: int,
        split: Split = "held_out",
    ) -> list[Sample]:  # fmt: skip
        victims, public, bad = _parted(subject, data, limit, split)
        names = [arm.name for arm in ARMS] + [ADAPTERS, MEAN, ANOTHER]
        if subject.mends:
            return [_sample(row, name, {}, LEFT_OUT) for name in names for row in victims]
        try:
            room = Room(subject, public, seed)
            true = room.pixels(victims).values
        except ModelProblem as problem:
            return [_sample(row, name, {}, problem.message) for name in names for row in victims]
        made: dict[str, tuple[Sequence[Tensor | None], Sequence[Mapping[str, float]], str]] = {
            MEAN: ([room.mean] * len(victims), (), ""),
            ANOTHER: ([room.pictures[k % len(public)] for k in range(len(victims))], (), ""),
            ADAPTERS: _by_matching(subject, room, victims, self.steps),
        } | {arm.name: _by_closed_form(room, arm, victims) for arm in ARMS}
        found = [_sample(row, name, {}, why) for row, why in bad for name in names]
        for name in names:
            pictures, words, why = made[name]
            for k, (row, picture) in enumerate(zip(victims, pictures, strict=False)):  # a batch may hold fewer, or more
                values = {} if picture is None else _values(room, picture, true, k)
                one = _sample(row, name, {**values, **(words[k] if words else {})}, why if not values else "")
                found.append(replace(one, pictures=_beside(name, picture, true[k])))
        return found

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        groups = list(dict.fromkeys(sample.group for sample in samples))
        return [
            mean_row(self.axis, self.name, name, group, samples, better, unit, seed, says=SAYS.get((name, group), ""))
            for name, (unit, better) in VALUES.items()
            for group in groups
            if not (name.startswith("words") and group in (ADAPTERS, MEAN, ANOTHER))
        ]


def _beside(group: str, picture: Tensor | None, true: Tensor) -> tuple[tuple[str, Image], ...]:
    """What a client has, and what the attacker makes of what is shared of it; nothing for towers without pixels."""
    if picture is None or true.dim() != 3:
        return ()
    told = group.replace("_", " ")
    return ("as it is", _shown(true)), (told if group in (MEAN, ANOTHER) else f"rebuilt from {told}", _shown(picture))


def _shown(values: Tensor) -> Image:
    levels = (values.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
    return Image.from_pixels(PIL.Image.fromarray(levels.numpy()))


def _by_closed_form(
    room: Room, arm: Arm, victims: Sequence[Example]
) -> tuple[Sequence[Tensor | None], Sequence[Mapping[str, float]], str]:
    """Pictures and words of each victim in an arm."""
    nothing: list[Tensor | None] = [None] * len(victims)
    places = 0 if room.held is None else room.mean.numel() // room.held.patches[0].numel()
    if room.held is None or len(room.held.places) < places:
        return nothing, (), NO_PATCHES
    if len(room.public) < TRIED + arm.clients:
        return nothing, (), f"{len(room.public)} public pairs are too few for the other clients of a sum"
    ridge = room.ridge(arm)
    seen = [room.seen(row, arm) for row in victims]
    words = [_words(room, row, one, arm.noise) for row, one in zip(victims, seen, strict=True)]
    return [room.picture(one, ridge) for one in seen], words, ""


def _by_matching(
    subject: DualWeights | ChatWeights, room: Room, victims: Sequence[Example], steps: int
) -> tuple[Sequence[Tensor | None], Sequence[Mapping[str, float]], str]:
    """Pictures of a batch of the first victims, filled with public pairs; the attacker knows the texts."""
    try:
        client = client_of(subject, "adapters", room.seed)
    except MissingExtra as problem:
        return [None] * BATCH, (), problem.message
    rows = [*victims, *room.public][:BATCH]
    pixels, parameters = room.pixels(rows), client.twin.parameters
    given = torch.autograd.grad(client.loss(rows, pixels), parameters, allow_unused=True)
    start = replace(pixels, values=room.mean.expand_as(pixels.values))
    return list(matched(partial(client.loss, rows), parameters, given, start, steps=steps)), (), ""


def _values(room: Room, picture: Tensor, true: Tensor, place: int) -> dict[str, float]:
    """Of one rebuilt picture, beside the mean picture and chance."""
    ours, own = _arrays(picture, true[place])
    others = np.concatenate([np.delete(true.double().numpy(), place, 0), room.pictures.double().numpy()])
    return {
        "psnr": psnr(ours, own), f"psnr{FLOOR}": psnr(room.mean.double().numpy(), own),
        "picked_out": float(picked_out(ours, own, others)), f"picked_out{FLOOR}": 1 / (len(others) + 1),
    }  # fmt: skip


def _words(room: Room, row: Example, seen: Shared, noise: float) -> dict[str, float]:
    """Of the tokens that tell the pair: how many are found, and how many of those found are its own."""
    if seen.tokens is None:
        return {}
    own, found = room.client.tokens(row) - room.common, words_used(seen, noise) - room.common
    values = {"words_found": len(own & found) / len(own), f"words_found{FLOOR}": 0.0} if own else {}
    return values | ({"words_right": len(own & found) / len(found)} if found else {})


def _sample(row: Example, group: str, values: Mapping[str, float], reason: str) -> Sample:
    return Sample(f"{row.id}@{group}", group, cluster_of(row), words_of(row), values, reason=reason)


def _parted(
    subject: DualWeights | ChatWeights, data: Dataset | None, limit: int | None, split: Split
) -> tuple[list[Example], list[Example], list[tuple[Example, str]]]:
    """Victims, public pairs, and victims that cannot be read: the rows in a drawn order, the last ones public.

    Raises:
        BadData: There are fewer than four pairs that can be read.
    """
    rows = _builtin(split) if data is None else _learnable(data, subject.kind)
    rows = sorted(rows, key=lambda row: word_fraction(row.id))
    bad = [(row, why) for row in rows if (why := problem_of(subject, row))]
    good = [row for row in rows if row.id not in {one.id for one, _ in bad}]
    if len(good) < 4:
        raise BadData(
            f"{data.name if data else 'No data'} has {len(good)} pairs that can be read; four are needed.",
            "Pass rows with image and caption, for a model that answers also with image, prompt and answers: half are "
            "attacked, half stand for what is public.",
        )
    first = min(len(good) // 2, VICTIMS if limit is None else limit)
    return good[:first], good[max(len(good) // 2, len(good) - PUBLIC) :], bad[: VICTIMS if limit is None else limit]


def _learnable(data: Dataset, kind: Kind) -> list[Example]:
    """The rows of which a client of this kind learns."""
    return [row for row in pairs_of(data) if kind == "dual" or row_of(row) is not None]


def _builtin(split: Split) -> list[Example]:
    """Pictures of known objects, their names as texts."""
    rows = [row for row in object_pictures(split).examples if row.answers]
    return [replace(row, caption=PHOTO.format(row.answers[0])) for row in spread(rows, VICTIMS + PUBLIC)]


def _arrays(picture: Tensor, true: Tensor) -> tuple[Any, Any]:
    return picture.double().numpy(), true.double().numpy()


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


SUITE = GradientInversion()
