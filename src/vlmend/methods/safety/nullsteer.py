"""NullSteer: one layer pushes towards refusal, by a map that gives (nearly) nothing for benign requests with pictures.

Null-space steering of vision-language models, NullSteer, arXiv 2603.22094 (CVPR 2026); from the abstract and
second-hand notes, no code found. The map is AlphaSteer's (`vlmend.methods.nullspace`), with three things of its own:
every anchor is read beside pictures, r is what tells harmful requests that the model declines beside a picture from
those that it answers there, and one layer acts:

    h <- h + strength (w . h) r,   r = mean of declined - mean of answered,   w . h near 0 for benign and 1 for harmful
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.beside import read_beside, with_own_pictures
from vlmend.methods.directions import picked_layers
from vlmend.methods.nullspace import check_map, null_space_edits
from vlmend.methods.reading import anchors_of, as_text, read_states
from vlmend.methods.refusing import answered_minus_refused, declined

__all__ = ["METHOD", "NullSteer"]

OWN = 2
"""Of the pictures that anchors are read beside, each anchor's own is the third."""
WAY_OUT = "Take the direction from the image's shift instead: --set refusal=image_shift."


@dataclass(frozen=True)
class NullSteer(AbstractMethod):
    """A rank-one map towards the model's own refusals, read in the null space of benign states.

    Attributes:
        strength: Share of r that a harmful anchor gets.
        layers: Decoder layers, from 0: `middle` (L/2), `upper` half, `all`, or like `14` or `14,20`.
        null_share: Share of the directions of a layer that count as benign states' null space, those with the smallest
            singular values; what is exactly null always counts.
        ridge: Price of a large map.
        refusal: r. `replies`: declined minus answered harmful anchors, each beside a picture of its own. `image_shift`:
            harmful anchors as text minus beside the content-free image.
        tokens: Where it is added: the `last_prompt` token, or every token of the `prompt`; always read from the last.
        corrupt: The content-free image, one of three images that anchors are read beside.
    """

    name: ClassVar[str] = "nullsteer"
    source: ClassVar[str] = "NullSteer, arXiv 2603.22094, CVPR 2026 (from the abstract)"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and harmless anchor requests"
    quick: ClassVar[Mapping[str, Any]] = {"ridge": 0.01, "refusal": "image_shift", "layers": "all"}
    sweep: ClassVar[Sweep | None] = Sweep("strength", (0.5, 1.0, 2.0, 4.0))

    strength: float = 1.0
    layers: str = "middle"
    null_share: float = 0.6
    ridge: float = 5.0
    refusal: Literal["replies", "image_shift"] = "replies"
    tokens: Literal["last_prompt", "prompt"] = "last_prompt"
    corrupt: Corrupt = "white"

    def __post_init__(self) -> None:
        check_map(self.null_share, self.ridge)

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Read the anchors beside three kinds of image, ask the harmful ones, and solve for the maps.

        Raises:
            BadData: The data lacks harmful or harmless anchors, or the model declines all or none of the harmful ones.
            BadParameter: `layers` names layers that the model does not have.
        """
        layers = picked_layers(self.layers, target.layers)
        harmful, benign = anchors_of(data, "harmful"), anchors_of(data, "benign")
        every = (*harmful, *benign)
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        states = read_beside(target, every, image, seed)
        bad = states[:, : len(harmful)]
        if self.refusal == "replies":
            refused = declined(target, harmful, with_own_pictures(every, seed))
            towards = -answered_minus_refused(bad[OWN], refused, WAY_OUT)
        else:
            towards = (read_states(target, harmful, as_text) - bad[0]).mean(0)
        edits, dose = null_space_edits(
            bad.flatten(0, 1), states[:, len(harmful) :].flatten(0, 1), towards, layers, null_share=self.null_share,
            ridge=self.ridge, strength=self.strength, tokens=self.tokens,
        )  # fmt: skip
        return self.made(target, data, seed, edits, dose)


METHOD = NullSteer
