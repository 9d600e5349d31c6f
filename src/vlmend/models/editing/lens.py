"""The logit lens: what a state in the middle of the decoder would say if it were the last one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmend.errors import AnatomyProblem
from vlmend.models.anatomy.find import Anatomy

__all__ = ["final_norm", "lens_score"]


def final_norm(model: Any, anatomy: Anatomy) -> nn.Module:
    """The norm after the last decoder block: the one norm beside the list of blocks.

    Raises:
        AnatomyProblem: There is none, or more than one.
    """
    parent = dict(model.named_modules())[anatomy.blocks_path.rpartition(".")[0]]
    norms = [child for child in parent.children() if "norm" in type(child).__name__.lower()]
    if len(norms) == 1:
        return norms[0]
    raise AnatomyProblem(
        f"{len(norms)} norms stand beside {anatomy.blocks_path}; the final one cannot be told.",
        "The logit lens does not work on this family; use another method.",
    )


def lens_score(
    model: Any, anatomy: Anatomy, states: Sequence[Float[Tensor, "row width"]], token_ids: Sequence[int]
) -> Float[Tensor, " row"]:
    """Trapezoid area, over the given layers, of the cosine of lens logits with a 0/1 vocabulary vector.

    HiddenDetect (arXiv 2502.14744): F_l = cos(W_U norm(h_l), r), score = integral of F over l.
    """
    norm, head = final_norm(model, anatomy), model.get_output_embeddings()
    found: list[Tensor] = []
    for state in states:
        logits = head(norm(state.to(model.dtype))).float()
        found.append(logits[:, list(token_ids)].sum(1) / (logits.norm(dim=1) * len(token_ids) ** 0.5))
    cosines = torch.stack(found)
    return torch.trapezoid(cosines, dim=0) if len(found) > 1 else cosines[0]
