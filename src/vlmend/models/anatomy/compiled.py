"""Do hooks fire in a model that `torch.compile` was used on? Checked before every call that hooks a model.

Dynamo does not look whether a module inside a compiled region has got a hook since the region was traced
(`torch._dynamo.config.skip_nnmodule_hook_guards`): a hook put on for one call is passed by without a
word, and the "mended" reply is the base model's. A hook on the outside of a region always fires. So each
decoder block, and the vision tower, may be a region of its own, and nothing above them may be compiled.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from vlmend.errors import ModelProblem
from vlmend.models.anatomy.find import Anatomy

__all__ = ["check_compiled"]

HINT = (
    "Compile each block on its own: for block in vlm.anatomy.blocks: "
    "block.forward = torch.compile(block.forward, dynamic=True). With adapters, compile nothing."
)


def check_compiled(model: nn.Module, anatomy: Anatomy, adapted: Sequence[str] = ()) -> None:
    """Refuse a model whose compiled parts would pass hooks by.

    Args:
        model: The whole model.
        anatomy: Its blocks and vision tower: what is hooked.
        adapted: Dotted paths of the linear modules that adapters hook too.

    Raises:
        ModelProblem: A hooked module was compiled by `Module.compile` or lies inside a compiled module,
            or a block was replaced since the model was loaded.
    """
    blocks = {f"{anatomy.blocks_path}.{place}": block for place, block in enumerate(anatomy.blocks)}
    found = {path: model.get_submodule(path) for path in (*blocks, anatomy.vision_path, *adapted)}
    above = {path: model.get_submodule(path) for path in {path[:end] for path in found for end in _ends(path)}}
    bad = [f"{path or 'the whole model'} is compiled" for path in sorted(above) if _compiled(above[path])]
    bad += [
        f"{path} is compiled with its hooks (by Module.compile)"
        for path, module in found.items()
        if path not in above and _whole(module)
    ]
    bad += [f"{path} was replaced after the model was loaded" for path in blocks if found[path] is not blocks[path]]
    if bad:
        shown = "; ".join(bad[:3]) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise ModelProblem(f"torch.compile would pass vlmend's hooks by: {shown}.", HINT)


def _ends(path: str) -> list[int]:
    """Where the paths of the modules above this one end; 0 is the whole model."""
    return [0, *(place for place, letter in enumerate(path) if letter == ".")]


def _compiled(module: nn.Module) -> bool:
    """By any of the three ways: a wrapper, `Module.compile`, or a compiled `forward`."""
    forward = vars(module).get("forward")
    return (
        isinstance(module, OptimizedModule)
        or _whole(module)
        or getattr(forward, "_torchdynamo_orig_callable", None) is not None
    )


def _whole(module: nn.Module) -> bool:
    """Compiled by `Module.compile`, which traces the hooks and does so again for each new one."""
    return vars(module).get("_compiled_call_impl") is not None
