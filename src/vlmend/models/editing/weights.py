"""The one interpreter of edits of weights, for every kind of model: adapters as hooks, parameters swapped and put back.

What is installed lives for one `with` block. The parameters that were there before are the very same objects
afterwards, whatever happens inside.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import assert_never

from torch import Tensor, nn

from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights, WeightEdit
from vlmend.errors import BadParameter

__all__ = ["check_weights", "installed_weights"]

AGAIN = "Fit the mend again on this very model."


def check_weights(model: nn.Module, edits: Sequence[WeightEdit]) -> None:
    """Refuse edits that do not fit a model; all of them are named.

    Raises:
        BadParameter: A module or parameter is not there, or has another shape.
    """
    modules = dict(model.named_modules(remove_duplicate=False)) if edits else {}
    parameters = dict(model.named_parameters(remove_duplicate=False)) if edits else {}
    wrong = [told for edit in edits if (told := _misfit(edit, modules, parameters))]
    if wrong:
        raise BadParameter(f"This model has {'; '.join(wrong[:5])}{' ...' * (len(wrong) > 5)}.", AGAIN)


@contextmanager
def installed_weights(model: nn.Module, edits: Sequence[WeightEdit]) -> Generator[None]:
    """Edits of weights at work inside the block, for every row and token; where `when` matters the caller chooses.

    Edits of one parameter or module act in their order. A parameter that several modules share is replaced in all.

    Raises:
        BadParameter: A module or parameter is not there, or has another shape.
    """
    check_weights(model, edits)
    modules = dict(model.named_modules(remove_duplicate=False)) if edits else {}
    homes = _homes(model) if any(isinstance(edit, ReplaceWeights) for edit in edits) else {}
    with ExitStack() as stack:
        for edit in edits:
            match edit:
                case LoadAdapter():
                    stack.callback(modules[edit.module].register_forward_hook(_adapter(edit)).remove)
                case ReplaceWeights():
                    path, _, name = edit.parameter.rpartition(".")
                    there = modules[path].get_parameter(name)
                    changed = _replaced(there, edit)
                    for home, key in homes[path, name]:
                        stack.callback(setattr, home, key, getattr(home, key))
                        setattr(home, key, changed)
                case _:
                    assert_never(edit)
        yield


def _misfit(edit: WeightEdit, modules: Mapping[str, nn.Module], parameters: Mapping[str, nn.Parameter]) -> str:
    """What is wrong with an edit on this model; "" where it fits."""
    match edit:
        case LoadAdapter():
            module = modules.get(edit.module)
            if module is None:
                return f"no module {edit.module}"
            if isinstance(module, nn.Linear):
                wanted, given = (module.out_features, module.in_features), (edit.up.shape[0], edit.down.shape[1])
                return "" if wanted == given else f"a module {edit.module} of {wanted} and not {given} numbers"
            return ""
        case ReplaceWeights():
            there = parameters.get(edit.parameter)
            if there is None:
                return f"no parameter {edit.parameter}"
            if not there.is_floating_point():
                return f"a quantised parameter {edit.parameter}"
            wanted, given = tuple(there.shape), tuple(edit.value.shape)
            return "" if wanted == given else f"a parameter {edit.parameter} of shape {wanted} and not {given}"
        case _:
            assert_never(edit)


def _homes(model: nn.Module) -> dict[tuple[str, str], list[tuple[nn.Module, str]]]:
    """Every place of each parameter, by the path and name of any of them."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    keys: list[tuple[tuple[str, str], int]] = []
    seen: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            keys.append(((path, name), id(parameter)))
            if id(module) not in seen:
                places.setdefault(id(parameter), []).append((module, name))
        seen.add(id(module))
    return {key: places[parameter] for key, parameter in keys}


def _replaced(there: nn.Parameter, edit: ReplaceWeights) -> nn.Parameter:
    """w + strength * (value - w), in the dtype and on the device of w; exactly the value at strength 1."""
    value = edit.value.to(there.device)
    if edit.strength != 1:
        weight = there.detach().to(value.dtype)
        value = weight + edit.strength * (value - weight)
    return nn.Parameter(value.to(there.dtype), requires_grad=False)


def _adapter(edit: LoadAdapter) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        down, up = edit.down.to(output), edit.up.to(output)
        return output + edit.strength * (args[0] @ down.T @ up.T)

    return hook
