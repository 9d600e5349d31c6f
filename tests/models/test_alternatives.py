"""Several replies to one request: to read its prompt once changes no likelihood, whatever the family and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from tests.models.families import FAMILIES, family
from tests.models.families.asking import BATCH
from tests.models.families.table import fitted
from tests.models.test_decoding import GREEDY, MANY, small, view, views
from tests.models.test_edits import DECODER, PROJECTOR, SITE, TOWER, drawn, weight_edit

from vlmend.core.conversation import Conversation
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    ContrastLogits,
    ContrastShift,
    CosineDose,
    Edit,
    FilterImage,
    Gate,
    ModuleEdit,
    OtherView,
    ProjectOut,
    RewritePrompt,
)
from vlmend.core.images import blank_image
from vlmend.core.sites import Site
from vlmend.models.decoding import alternatives, forced
from vlmend.models.decoding.trial import loop_of
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

REPLIES = ["Yes.", "no", "a b c d e", ""]


@pytest.fixture(autouse=True)
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests here are too short to pay, but where that is what is tested."""
    if "pays" not in request.node.name:
        monkeypatch.setattr(alternatives, "PASS", 0)


def off(one: VLM, batch: Sequence[Conversation], *, shared: bool = True) -> float:
    """The largest difference between the likelihoods of replies with prompts read once, and each with its own."""
    asked, said = [c for c in batch for _ in REPLIES], REPLIES * len(batch)
    counts: list[int] = []

    def watched(*args: Any) -> list[int]:
        found = alternatives.worth_sharing(*args)
        counts.append(len(found))
        return found

    with mock.patch.object(forced, "worth_sharing", watched):
        together = one.logprobs(asked, said)
    with mock.patch.object(forced, "worth_sharing", return_value=[]):
        apart = one.logprobs(asked, said)
    assert counts == [len(asked) if shared else 0]
    assert [len(each) for each in together] == [len(each) for each in apart]
    return float((torch.cat(together) - torch.cat(apart)).abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_likelihoods_of_each_reply_with_its_own_prompt(name: str) -> None:
    one = family(name)
    shared = loop_of(one).way == "refilled"
    assert off(one, BATCH[:3], shared=shared) < 1e-4
    assert off(one.with_mend(fitted(name)), BATCH[:2], shared=shared) < 1e-4


def kinds(vlm: VLM) -> dict[str, tuple[Edit, ...]]:
    """One of each kind of edit, at each scope that acts otherwise."""
    axes = torch.linalg.qr(drawn(32, 2))[0].T
    unit = drawn(32) / drawn(32).norm()
    low, high = drawn(3, 32) * 0.3, drawn(32, 3, seed=1) * 0.3
    scopes = ("last_prompt", "last", "all", "image", "prompt", "reply")
    return {
        **{f"add {scope}": (AddVector(SITE, drawn(32), scope),) for scope in scopes},
        "gate": (AddVector(SITE, drawn(32), "last", gate=Gate(Site("language", 0), drawn(32), 0.0)),),
        "project": (ProjectOut(SITE, axes, 1.0, "last"),),
        "dose": (CosineDose(SITE, unit, drawn(32, seed=2), 2.0, "all"),),
        "affine": (AffineMap(SITE, low, high, drawn(32), tokens="last"),),
        "affine of the last": (AffineMap(SITE, low, high, drawn(32), source="last_prompt", tokens="prompt"),),
        "module": (ModuleEdit(SITE, low, drawn(3), high, drawn(32), tokens="last"),),
        "shift": (ContrastShift((1, 2), blank_image(16), tokens="last"),),
        "contrast": (ContrastLogits((OtherView("No. "),), 0.5, when="always"),),
        **{
            f"{kind} {place}": (weight_edit(vlm, kind, module),)
            for kind in ("adapter", "weights")
            for place, module in (("projector", PROJECTOR), ("tower", TOWER), ("decoder", DECODER))
        },
        "shift and adapter": (ContrastShift((1, 2), blank_image(16)), weight_edit(vlm, "adapter", DECODER)),
        "filter": (FilterImage("jpeg", 50.0),),
        "words": (RewritePrompt("Look: "),),
    }


@pytest.mark.parametrize("name", kinds(tiny_vlm()))
def test_every_edit_acts_as_on_each_reply_with_its_own_prompt(name: str, tiny: VLM) -> None:
    one = view(tiny, *kinds(tiny)[name])
    assert off(one, MANY[:3], shared=name not in ("contrast", "shift and adapter")) < 1e-4
    moved = torch.cat(one.logprobs(MANY[:3], ["abc"] * 3)) - torch.cat(tiny.logprobs(MANY[:3], ["abc"] * 3))
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("place", range(5))
def test_small_batches_give_the_same_and_earlier_reads_change_no_bit(place: int, tiny: VLM) -> None:
    one = views(tiny)[place]
    few = small(one, 150)  # the replies to one request do not fit into one batch
    wanted = one.logprobs([c for c in MANY[:4] for _ in REPLIES], REPLIES * 4)
    found = few.logprobs([c for c in MANY[:4] for _ in REPLIES], REPLIES * 4)
    torch.testing.assert_close(torch.cat(found), torch.cat(wanted), atol=1e-4, rtol=1e-4)
    few.generate(MANY[:4], GREEDY)  # which keeps what it has read
    assert torch.equal(torch.cat(few.logprobs([c for c in MANY[:4] for _ in REPLIES], REPLIES * 4)), torch.cat(found))


def test_a_prompt_that_pays_is_read_once_and_each_token_of_a_reply_in_a_step() -> None:
    vlm = tiny_vlm(seed=0)
    loop_of(vlm)
    sizes: list[tuple[int, int]] = []
    vlm.anatomy.blocks[0].register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[:2])))
    asked = Conversation.ask("a question of some length " * 4)
    vlm.logprobs([asked] * 3, ["a", "bc", "def"])
    length = sizes[0][1]
    assert sizes == [(1, length), (2, 1), (1, 1)]  # one letter is a token; who is finished leaves


def test_where_nothing_pays_each_reply_is_read_with_its_own_prompt() -> None:
    """Different requests, and long replies to short prompts."""
    vlm = tiny_vlm(seed=0)
    loop_of(vlm)
    calls: list[int] = []
    vlm.anatomy.blocks[0].register_forward_hook(lambda module, args, out: calls.append(out.shape[0]))
    vlm.logprobs(MANY[:3], ["ab"] * 3)
    vlm.logprobs(MANY[:1] * 2, ["ab " * 20] * 2)
    assert calls == [3, 2]
