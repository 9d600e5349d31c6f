"""Heat maps by captum (extra `explain`): integrated gradients, Grad-CAM and occlusion. The one home of that library."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isqrt, nan
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmend.audit.explaining.shown import Explainable, Shown
from vlmend.core.metrics.attribution import completeness_error
from vlmend.core.targets import ChatWeights, DualWeights
from vlmend.errors import FAILURES, MissingExtra, ModelProblem, UsageError, VlmendError, cause_of

__all__ = ["COMPLETE", "METHODS", "Heat", "MapMethod", "as_map_method", "check_captum", "heat_of", "vision_tower"]

MapMethod = Literal["integrated_gradients", "grad_cam", "occlusion"]
METHODS: tuple[MapMethod, ...] = get_args(MapMethod)

COMPLETE = 0.01
"""Largest completeness error of a map that is called complete, as a share of the change that it explains."""

STEPS, MOST_STEPS = 16, 256
"""Steps of integrated gradients: doubled until a map is complete, twice as many are no better, or there are so many."""

ACROSS = 6
"""Squares that occlusion hides, on the short side of a picture; each half over the next."""

EXTRA = 8
"""Tokens of a tower at most that stand for no place: the class, registers."""

ABREAST = 16


@dataclass(frozen=True, eq=False)
class Heat:
    """A map of one picture.

    Attributes:
        map: What each pixel adds to the score; of Grad-CAM only what speaks for it.
        score, blank: Of the picture, and of its mean colour everywhere.
        steps: Of integrated gradients; 0 for others.
        error: Completeness error of integrated gradients; NaN for others, which are not complete.
    """

    map: Float[npt.NDArray[np.float64], "height width"]
    score: float
    blank: float
    steps: int = 0
    error: float = nan


def as_map_method(name: str) -> MapMethod:
    """A method by its name.

    Raises:
        UsageError: There is none of that name.
    """
    for method in METHODS:
        if name == method:
            return method
    raise UsageError(f"There is no method {name!r} of maps.", f"There are: {', '.join(METHODS)}.")


def check_captum() -> Any:
    """The library.

    Raises:
        MissingExtra: captum is not installed.
    """
    try:
        import captum.attr as library
    except ImportError as problem:
        raise MissingExtra("Maps are made with captum, which is not installed.", "pip install 'vlmend[explain]'"
                           ) from problem  # fmt: skip
    return library


def heat_of(target: Explainable, seen: Shown, method: MapMethod, *, steps: int = 0) -> Heat:
    """The map of a picture.

    Args:
        target: The model.
        seen: The picture, as it reads it.
        method: How the map is made.
        steps: Of integrated gradients; as many as it takes unless given.

    Raises:
        MissingExtra: captum is not installed.
        ModelProblem: Gradients do not pass the model, or its tower has no places that can be told.
    """
    library = check_captum()
    with torch.no_grad():
        score, blank = (float(seen.score(one)[0]) for one in (seen.picture, seen.baseline))
    try:
        match method:
            case "integrated_gradients":
                return _integrated(library, seen, score, blank, steps)
            case "grad_cam":
                return Heat(_grad_cam(library, target, seen), score, blank)
            case "occlusion":
                return Heat(_occlusion(library, seen), score, blank)
    except VlmendError:
        raise
    except FAILURES as problem:
        raise ModelProblem(
            f"{target.name}: no map can be made by {method} ({cause_of(problem)}).",
            "Weights that are quantised may pass no gradients: load the model without --quantize, or take "
            "--method occlusion, which needs none.",
        ) from problem


def vision_tower(target: Explainable) -> tuple[nn.Module, nn.Module]:
    """The whole model of a target, and the tower in it that reads pictures.

    Raises:
        ModelProblem: It cannot be reached, or told.
    """
    if isinstance(target, DualWeights) and target.towers.vision is not None:
        return target.towers.model, target.towers.vision
    if isinstance(target, ChatWeights):
        return target.model, target.anatomy.vision
    raise ModelProblem(
        f"The vision tower of {target.name} cannot be reached.",
        "Take --method integrated_gradients, and leave out the checks that shuffle its weights: --no-checks.",
    )


def _integrated(library: Any, seen: Shown, score: float, blank: float, fixed: int) -> Heat:
    """Sundararajan, Taly and Yan, ICML 2017, arXiv 1703.01365; from the picture's mean colour."""
    steps, best = fixed or STEPS, Heat(np.zeros(seen.picture.shape[2:]), score, blank, 0, inf)
    while True:
        found: Tensor = library.IntegratedGradients(seen.score).attribute(
            seen.picture, baselines=seen.baseline, n_steps=steps, internal_batch_size=ABREAST
        )
        added = _summed(found)
        heat = Heat(added, score, blank, steps, completeness_error(float(added.sum()), score, blank))
        if heat.error >= best.error:
            return best
        if heat.error <= COMPLETE or steps >= MOST_STEPS or fixed:
            return heat
        steps, best = 2 * steps, heat


def _occlusion(library: Any, seen: Shown) -> npt.NDArray[np.float64]:
    """Zeiler and Fergus, ECCV 2014, arXiv 1311.2901: what the score loses where a square is the mean colour."""
    *_, channels, height, width = seen.picture.shape
    side = -(-min(height, width) // ACROSS)
    with torch.no_grad():
        found: Tensor = library.Occlusion(seen.score).attribute(
            seen.picture, sliding_window_shapes=(channels, side, side), baselines=seen.baseline,
            strides=(channels, -(-side // 2), -(-side // 2)), perturbations_per_eval=ABREAST,
        )  # fmt: skip
    return _summed(found) / channels


def _grad_cam(library: Any, target: Explainable, seen: Shown) -> npt.NDArray[np.float64]:
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) at the last block that is read in several places.

    Of a transformer's tokens it is state times gradient, place by place (HiResCAM, Draelos and Carin, arXiv
    2011.08891): there Grad-CAM's mean of the gradients over all places tells nothing about a place.
    """
    layer, is_grid = _last_read(target, seen)
    if is_grid:
        found: Tensor = library.LayerGradCam(seen.score, layer).attribute(seen.picture)
    else:
        product: Tensor = library.LayerGradientXActivation(seen.score, layer).attribute(seen.picture)
        found = _as_grid(product, seen).sum(1, keepdim=True)
    size = seen.picture.shape[2:]
    spread = nn.functional.interpolate(found.detach().clamp_min(0).float(), size, mode="bilinear")
    return spread[0, 0].double().cpu().numpy()


def _last_read(target: Explainable, seen: Shown) -> tuple[nn.Module, bool]:
    """The last block of the tower at which the score depends on several places, and whether its states are a grid.

    A score that reads a class token alone depends on no other place of the last block.

    Raises:
        ModelProblem: There is none.
    """
    _, tower = vision_tower(target)
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList) and len(module)]
    blocks: list[nn.Module] = [*max(lists, key=len, default=[])]
    with _outputs(blocks) as found, torch.enable_grad():
        score = seen.score(seen.picture.detach().clone().requires_grad_()).sum()
        slopes: Any = torch.autograd.grad(score, [*found.values()], allow_unused=True) if found else ()
    for block, slope in reversed([*zip(found, slopes, strict=True)]):
        if slope is not None and int((_as_grid(slope, seen).abs().amax(1) > 0).sum()) > 1:
            return block, slope.ndim == 4
    raise ModelProblem(
        f"{target.name}: no block of its vision tower is read in several places.", "Take another --method."
    )


@contextmanager
def _outputs(blocks: list[nn.Module]) -> Generator[dict[nn.Module, Tensor]]:
    """What each block gave in the last call."""
    found: dict[nn.Module, Tensor] = {}

    def keeping(block: nn.Module) -> Callable[..., None]:
        def keep(module: nn.Module, args: object, output: Any) -> None:
            found[block] = output if isinstance(output, Tensor) else output[0]

        return keep

    hooks = [block.register_forward_hook(keeping(block)) for block in blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _as_grid(state: Tensor | tuple[Tensor, ...], seen: Shown) -> Float[Tensor, "1 channel down across"]:
    """States of a block as places of the picture; tokens in front that stand for no place are left out.

    Raises:
        ModelProblem: They make no grid.
    """
    one = state if isinstance(state, Tensor) else state[0]
    if one.ndim == 4:
        return one
    height, width = seen.picture.shape[2:]
    tokens = one.shape[1]
    down = isqrt(tokens * height // width)
    across = round(down * width / height)
    if one.ndim != 3 or not 0 <= tokens - down * across <= EXTRA:
        raise ModelProblem(
            f"{tokens} tokens of a picture of {height} x {width} make no grid.", "Take --method integrated_gradients."
        )
    return one[:, tokens - down * across :].transpose(1, 2).reshape(len(one), -1, down, across)


def _summed(found: Tensor) -> npt.NDArray[np.float64]:
    return found.detach()[0].double().sum(0).cpu().numpy()
