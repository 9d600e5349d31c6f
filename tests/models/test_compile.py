"""torch.compile: blocks compiled one by one take every mend; what would pass hooks by is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import AddVector, Tokens
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem
from vlmend.models.anatomy.compiled import check_compiled
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

MIXED = [Conversation.ask("short"), Conversation.ask("with a picture", noise_image(16, 3))]
compiled: Callable[..., Any] = partial(torch.compile, backend="eager", dynamic=True)
"""The graphs that a compiler would get, run as they are: it is Dynamo that decides about hooks."""


def push(vlm: VLM, tokens: Tokens, layer: int) -> VLM:
    vector = 3 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    card = MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test")
    return vlm.with_mend(Mend((AddVector(Site("language", layer), vector, tokens),), card))


def answers(vlm: VLM) -> tuple[torch.Tensor, list[str]]:
    """Logits and greedy replies of the base and of two mends."""
    views = (vlm, push(vlm, "all", 1), push(vlm, "last", 0))
    logits = torch.stack([view.logits(MIXED) for view in views])
    return logits, [r.text for view in views for r in view.generate(MIXED, Sampling(max_new_tokens=4))]


class Inner(torch.nn.Module):
    """A module with a module inside, as every decoder has them."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(x)


def test_blocks_compiled_one_by_one_take_every_mend_and_are_traced_once() -> None:
    vlm = tiny_vlm(layers=2)
    logits, replies = answers(vlm)
    for block in vlm.anatomy.blocks:
        block.forward = compiled(block.forward)
    check_compiled(vlm.model, vlm.anatomy)
    counters.clear()
    found, said = answers(vlm)
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=0)
    assert said == replies
    graphs = counters["stats"]["unique_graphs"]
    answers(vlm)
    assert graphs > 0
    assert counters["stats"]["unique_graphs"] == graphs


def test_blocks_wrapped_before_the_model_is_looked_at_are_as_good() -> None:
    vlm = tiny_vlm(layers=2)
    layers = vlm.model.get_submodule(vlm.anatomy.blocks_path)
    for place in range(2):
        layers[place] = compiled(layers[place])
    with pytest.raises(ModelProblem, match=r"layers\.0 was replaced after the model was loaded"):
        check_compiled(vlm.model, vlm.anatomy)
    check_compiled(vlm.model, find_anatomy(vlm.model))


@pytest.mark.parametrize(
    ("compile_it", "said"),
    [
        (lambda vlm: vlm.model.compile(backend="eager"), "the whole model is compiled"),
        (lambda vlm: vlm.model.model.language_model.compile(backend="eager"), "model.language_model is compiled"),
        (lambda vlm: vlm.anatomy.blocks[1].compile(backend="eager"), "layers.1 is compiled with its hooks"),
        (lambda vlm: vlm.anatomy.vision.compile(backend="eager"), "vision_tower is compiled with its hooks"),
        (lambda vlm: setattr(vlm.model, "forward", compiled(vlm.model.forward)), "the whole model is compiled"),
    ],
    ids=["model", "language model", "block", "vision tower", "forward of the model"],
)
def test_what_is_compiled_around_a_hook_is_refused(compile_it: Callable[[VLM], None], said: str) -> None:
    vlm = tiny_vlm(layers=2)
    compile_it(vlm)
    with pytest.raises(ModelProblem) as problem:
        check_compiled(vlm.model, vlm.anatomy)
    assert said in problem.value.message
    assert "block.forward = torch.compile" in problem.value.hint


def test_a_wrapped_model_is_refused() -> None:
    vlm = tiny_vlm(layers=2)
    wrapped: Any = torch.compile(vlm.model, backend="eager")
    with pytest.raises(ModelProblem, match="the whole model is compiled"):
        check_compiled(wrapped, vlm.anatomy)


def test_an_adapter_inside_a_compiled_block_is_refused() -> None:
    vlm = tiny_vlm(layers=2)
    vlm.anatomy.blocks[1].forward = compiled(vlm.anatomy.blocks[1].forward)
    inside = f"{vlm.anatomy.blocks_path}.1.mlp.up_proj"
    check_compiled(vlm.model, vlm.anatomy, [inside.replace(".1.", ".0.")])
    with pytest.raises(ModelProblem, match=r"layers\.1 is compiled"):
        check_compiled(vlm.model, vlm.anatomy, [inside])


def test_a_hook_inside_a_compiled_module_is_passed_by() -> None:
    """Why it is refused. Where a later torch calls it, the refusal can go."""
    torch._dynamo.reset()
    outer = Inner()
    outer.compile(backend="eager")
    plain = outer(torch.ones(1, 2))
    handle = outer.inside.register_forward_hook(lambda module, args, output: output + 1)
    assert torch.equal(outer(torch.ones(1, 2)), plain)
    handle.remove()
    outer.register_forward_hook(lambda module, args, output: output + 1)
    assert torch.equal(outer(torch.ones(1, 2)), plain + 1)


@pytest.mark.parametrize(
    "ask", [lambda vlm: answers(vlm), lambda vlm: vlm.lens(MIXED, [0, 1], [5])], ids=["answer", "read"]
)
def test_a_compiled_model_is_asked_nothing(ask: Callable[[VLM], object]) -> None:
    vlm = tiny_vlm(layers=2)
    vlm.model.compile(backend="eager")
    with pytest.raises(ModelProblem, match="the whole model is compiled"):
        ask(vlm)


def test_a_checkpoint_that_asks_for_compiled_decoding_is_decoded_as_it_is() -> None:
    """With a static cache transformers' own loop compiles on a GPU, and with this flag on any device."""
    vlm = tiny_vlm(layers=2)
    vlm = replace(vlm, anatomy=replace(vlm.anatomy, alone="to be decoded by transformers' loop"))
    _, replies = answers(vlm)
    plan = vlm.model.generation_config
    plan.cache_implementation = "static"
    plan.compile_config = CompileConfig(backend="eager", fullgraph=False)
    plan.compile_config._compile_all_devices = True
    assert answers(vlm)[1] == replies
