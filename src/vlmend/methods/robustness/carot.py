"""CaRot: fine-tune both towers on pictures and their names so that confidence keeps its meaning under a shift.

Oh et al., arXiv 2311.01723 (NeurIPS 2024). For a batch of pictures and the texts of their names, with S the logits of
all pairs, V the projection of the vision tower ("width state") and T an average of earlier models, the teacher:

    L = InfoNCE(S) + orthogonal ||V V' - I||_F + distil [CE(softmax S_T, S) + CE(softmax S_T', S')] / 2

where ' transposes: pictures among texts, and texts among pictures. The second term holds up the smallest singular value
of the picture embeddings, the third keeps their confidence near the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights
from vlmend.errors import BadParameter, ModelProblem
from vlmend.methods.contrastive import AbstractContrastive, Pairs, embedded
from vlmend.pictures.named import named_pictures
from vlmend.training.losses import distillation

__all__ = ["METHOD", "Carot", "Teacher", "not_orthonormal"]

PROJECTION = "visual_projection.weight"

MOMENTUM = (0.05, 0.9)
"""What the teacher keeps of itself when it is refreshed, at first and from `SETTLED` on; it rises in a line."""
SETTLED = 0.2
"""Share of the steps."""


@dataclass(frozen=True)
class Carot(AbstractContrastive):
    """Contrastive fine-tuning with an orthogonality constraint and a teacher of earlier weights.

    Attributes:
        orthogonal: Weight of the distance of the vision projection from orthonormal rows; 0 leaves it out.
        distil: Weight of the teacher's logits; with both at 0 it is plain contrastive fine-tuning.
        refresh: Steps between refreshes of the teacher.
    """

    name: ClassVar[str] = "carot"
    source: ClassVar[str] = "Oh et al., arXiv 2311.01723, NeurIPS 2024"

    steps: int = 80
    rate: float = 5e-4
    batch: int = 64
    orthogonal: float = 0.2
    distil: float = 1.5
    refresh: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.orthogonal, self.distil) < 0 or self.refresh < 1 or self.train != "weights":
            raise BadParameter(
                f"orthogonal={self.orthogonal:g}, distil={self.distil:g}, refresh={self.refresh}, train={self.train} "
                "cannot be.",
                "Weights of terms are 0 or more, refresh is at least 1, and train is weights: the projection itself "
                "is constrained, which adapters leave alone.",
            )

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
            ModelProblem: The model has no linear projection of pictures.
        """
        known = named_pictures(data)
        twin = self.twin(target, seed)
        if self.orthogonal and PROJECTION not in twin.learning:
            raise ModelProblem(
                f"{target.name} has no {PROJECTION}, which carot keeps orthonormal.",
                "Pass orthogonal=0, or take a model of the CLIP kind.",
            )
        teacher = Teacher(self, target, twin.parameters, seed)
        taught = target.on(teacher.model)

        def loss(pairs: Pairs) -> Tensor:
            total = pairs.contrast()
            if self.orthogonal:
                total = total + self.orthogonal * not_orthonormal(twin.model.get_parameter(PROJECTION))
            if self.distil and pairs.step:
                with torch.no_grad():
                    seen, told = embedded(taught, pairs.pixels, pairs.words)
                total = total + self.distil * distillation(pairs.logits, pairs.scale * seen @ told.T)
            return total

        hooks = [teacher] if self.distil else []
        return self.made(target, data, seed, self.tuned(target, twin, known, loss, seed, hooks).edits, {})


class Teacher:
    """A second twin that follows the weights of the first from a distance: a hook around steps."""

    def __init__(self, method: Carot, target: DualWeights, learning: Sequence[nn.Parameter], seed: int) -> None:
        twin = method.twin(target, seed)
        self.model: Any = twin.model
        self._method, self._pairs = method, list(zip(twin.parameters, learning, strict=True))

    def before_step(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing."""

    def after_backward(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing."""

    @torch.no_grad()
    def after_step(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        """Every `refresh` steps: the teacher's weights become m times themselves and 1 - m times those that learn."""
        if (step + 1) % self._method.refresh:
            return
        low, high = MOMENTUM
        kept = low + (high - low) * min(1.0, (step + 1) / (SETTLED * self._method.steps))
        for own, learnt in self._pairs:
            own.lerp_(learnt, 1 - kept)


def not_orthonormal(projection: Float[Tensor, "width state"]) -> Tensor:
    """Frobenius norm of V V' - I; 0 where the rows are orthonormal."""
    return torch.linalg.matrix_norm(projection @ projection.T - torch.eye(len(projection), device=projection.device))


METHOD = Carot
