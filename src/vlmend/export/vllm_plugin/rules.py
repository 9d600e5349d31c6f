"""What edits do to states, in plain torch: the rules of `vlmend.core.state_edits`, written for flat rows of positions.

`vlmend` cannot be installed beside vLLM (they pin other transformers), so the rules stand here a second time; a test
of vlmend holds each of them to the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["change", "is_open"]

Act = Mapping[str, Any]
"""An edit or a gate: its kind, its numbers, its tensors on the model's device."""


def change(act: Act, states: Tensor, last: Tensor) -> Tensor:
    """What an edit adds to states, "position width", in float32 or better.

    Args:
        act: The edit.
        states: Of the positions.
        last: Of the last prompt token of the request of each position, which some maps read.

    Raises:
        ValueError: A kind that there is not.
    """
    match act["kind"]:
        case "AddVector":
            return act["vector"].to(states).expand_as(states)
        case "ProjectOut":
            directions = act["directions"].to(states)
            return -act["strength"] * (states @ directions.T) @ directions
        case "CosineDose":
            direction = act["direction"].to(states)
            cosine = (nn.functional.normalize(states - act["reference"].to(states), dim=-1) @ direction).clamp(0, 1)
            return -(act["strength"] * states.norm(dim=-1) * cosine)[:, None] * direction
        case "AffineMap":
            source = last if act["source"] == "last_prompt" else states
            read, write, bias = (act[name].to(states) for name in ("read", "write", "bias"))
            return act["strength"] * (source @ read.T @ write.T + bias)
        case "ModuleEdit":
            read, read_bias, write, write_bias = (
                act[name].to(states) for name in ("read", "read_bias", "write", "write_bias")
            )
            return act["strength"] * (torch.relu(states @ read.T + read_bias) @ write.T + write_bias)
        case kind:
            raise ValueError(f"there is no edit of kind {kind!r}")


def is_open(gate: Act, state: Tensor) -> bool:
    """Whether a gate opens for a request whose last prompt token has this state, "width", in float32 or better.

    Raises:
        ValueError: A kind that there is not.
    """
    match gate["kind"]:
        case "Gate":
            score = gate["weight"].to(state) @ state + gate["bias"]
        case "MahalanobisGate":
            z = gate["project"].to(state) @ state
            benign, harmful = (
                (gate[f"{side}_spread"].to(state) @ (z - gate[f"{side}_centre"].to(state))).norm()
                for side in ("benign", "harmful")
            )
            score = benign - harmful + gate["bias"]
        case "NeighbourGate":
            z = nn.functional.normalize(gate["project"].to(state) @ state, dim=-1)
            benign, harmful = (
                (gate[side].to(state) - z).norm(dim=-1).kthvalue(gate["neighbours"]).values
                for side in ("benign", "harmful")
            )
            score = benign - harmful + gate["bias"]
        case kind:
            raise ValueError(f"there is no gate of kind {kind!r}")
    return bool(score > 0)
