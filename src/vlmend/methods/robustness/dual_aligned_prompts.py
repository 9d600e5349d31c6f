"""DuAl-PT: several learnt prompts, aligned to descriptions of each thing and to the patches of its pictures.

After the abstract of Hu et al., arXiv 2309.04158; how they align is ours. With t_cj the embedding of name c behind
prompt j, E_c those of the descriptions of c by the bare model, P_i those of the patches of picture i, S the Sinkhorn
divergence (`training.transport`) and y_i the name of picture i,

    L = CE(mean over j of t_cj) + told * mean over c of S(t_c, E_c) + local * mean over i of S(t_y_i, P_i)

With one prompt and no weights it is CoOp (`maple` with depth 1 and no visual tokens).
"""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.metrics.calibration import nll
from vlmend.core.targets import DualWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.prompting import AbstractPrompting, every_second_thing
from vlmend.models.dual.patches import patch_embeddings
from vlmend.pictures.galleries import PHOTO, some_objects
from vlmend.pictures.named import NamedPictures, named_pictures
from vlmend.training.transport import divergence

__all__ = ["METHOD", "DualAlignedPrompts", "described"]

TOGETHER = 64
"""Pictures whose patches are read at a time."""

Described = dict[str, list[str]]
"""Descriptions by name."""


@dataclass(frozen=True)
class DualAlignedPrompts(AbstractPrompting):
    """Prompts held to what is told of things, and to the parts of their pictures.

    Attributes:
        prompts: How many; the embedding of a text is the mean of what it is behind each.
        told: Weight of the descriptions.
        local: Weight of the patches.
        descriptions: Those of the thing itself; those of another one (`shuffled`, the negative control); or its name
            alone, in the frame of every text here (`names`).
        blur: Of the transport: vectors that lie nearer together than that, in 1 - cosine, are hardly told apart.
    """

    name: ClassVar[str] = "dual_aligned_prompts"
    source: ClassVar[str] = "Hu et al., arXiv 2309.04158, 2023"
    passes: ClassVar[str] = "none for pictures; each text as often as there are prompts"
    data: ClassVar[str] = "pictures with their names, and descriptions of the names; training"
    quick: ClassVar[Mapping[str, Any]] = {**AbstractPrompting.quick, "prompts": 2}

    steps: int = 30
    prompts: int = 4
    told: float = 1.0
    local: float = 0.1
    descriptions: Literal["own", "shuffled", "names"] = "own"
    blur: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompts < 1 or min(self.told, self.local) < 0 or self.blur <= 0:
            raise BadParameter(
                f"prompts={self.prompts}, told={self.told:g}, local={self.local:g}, blur={self.blur:g} cannot be.",
                "prompts is at least 1, told and local are 0 or more, blur is above 0.",
            )

    def builtin(self) -> Dataset:
        """Every second known object, and two descriptions of each that a language model wrote."""
        seen = every_second_thing()[0]
        return replace(
            seen, name="every-second-object-described", examples=(*seen.examples, *_written(named_pictures(seen).names))
        )

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names, and a description of each."""
        rows = some_objects()
        told = (Example(f"told {row.id}", caption=f"thing {row.id}", answers=row.answers) for row in rows.examples)
        return replace(rows, name="a-few-objects-described", examples=(*rows.examples, *told))

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Learn on rows with an image and a right answer; rows with an answer, a caption and no image describe it.

        Raises:
            BadData: There are fewer than two names, or a name has no description.
            AnatomyProblem: The model is not of the CLIP kind, and `local` is above 0.
        """
        known = named_pictures(data)
        right, images = torch.tensor(known.right), target.bare.embed_images(known.images)
        wanted, kept = self._wanted(target, known, data, seed) if self.told else (None, None)
        patches = _patches(target, known.images) if self.local else None
        prompt, plain = self.prompt(target, seed, sets=self.prompts), self.made(target, data, seed, [], {})

        def loss(step: int, view: DualWeights, places: Sequence[int]) -> Tensor:
            del step
            own = right[list(places)]
            views = [target.bare.with_mend(replace(plain, edits=(edit,))) for edit in prompt.each]
            each = torch.stack([normalize(one.text_features(known.texts), dim=1) for one in views], dim=1)
            texts = each[:, 0] if self.prompts == 1 else normalize(each.mean(1), dim=1)
            found = nll(view.scored(images[list(places)], texts), own, target.pair_kind).mean()
            if wanted is not None and kept is not None:
                found = found + self.told * divergence(each, wanted, kept, self.blur).mean()
            if patches is not None:
                seen = patches[list(places)]
                every = torch.ones(seen.shape[:2], dtype=torch.bool)
                found = found + self.local * divergence(each[own], seen, every, self.blur).mean()
            return found

        return self.learnt(target, data, prompt, len(images), seed, loss)

    def _wanted(
        self, target: DualWeights, known: NamedPictures, data: Dataset, seed: int
    ) -> tuple[Float[Tensor, "name description width"], Bool[Tensor, "name description"]]:
        """Embedded descriptions of each name, filled up to one number, and which of them count.

        Raises:
            BadData: A name has none.
        """
        texts = {name: [PHOTO.format(name)] for name in known.names}
        if self.descriptions != "names":
            texts = described(data, known.names)
        if self.descriptions == "shuffled":
            texts = _shuffled(texts, seed)
        most = max(map(len, texts.values()))
        embedded = target.bare.embed_texts([one for name in known.names for one in texts[name]])
        parts = embedded.split([len(texts[name]) for name in known.names])
        kept = torch.tensor([[k < len(part) for k in range(most)] for part in parts])
        return torch.stack([torch.cat([part, part[:1].expand(most - len(part), -1)]) for part in parts]), kept


def described(data: Dataset, names: Sequence[str]) -> Described:
    """The descriptions of each name: captions of the rows with this answer and no image.

    Raises:
        BadData: A name has none.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in data.examples:
        if row.image is None and row.answers and row.caption:
            found[row.answers[0]].append(row.caption)
    missing = [name for name in names if name not in found]
    if missing:
        raise BadData(
            f"{data.name} describes {len(names) - len(missing)} of {len(names)} names; not {', '.join(missing[:5])}.",
            "Add rows with answers (the name), caption (a description of it) and no image, one or more for each; or "
            "told=0, or descriptions=names.",
        )
    return {name: found[name] for name in names}


def _shuffled(texts: Described, seed: int) -> Described:
    """Each name with the descriptions of another one."""
    order = random.Random(f"descriptions:{seed}").sample(list(texts), len(texts))
    return {name: texts[other] for name, other in zip(order, (*order[1:], order[0]), strict=True)}


def _patches(target: DualWeights, images: Sequence[Image]) -> Float[Tensor, "image patch width"]:
    parts = [images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER)]
    return torch.cat([patch_embeddings(target.towers, target.bare.pixels(part)) for part in parts])


def _written(names: Sequence[str]) -> list[Example]:
    """The shipped descriptions of these names, each behind the name, in the frame of every text here."""
    text = resources.files("vlmend.pictures").joinpath("descriptions.tsv").read_text(encoding="utf-8")
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(text), delimiter="\t")}
    return [
        Example(f"{name}: {kind}", caption=PHOTO.format(f"{name}, {rows[name][kind]}"), answers=(name,))
        for name in names
        for kind in ("looks", "kin")
    ]


METHOD = DualAlignedPrompts
