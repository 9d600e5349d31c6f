"""The doctor's findings, and that nothing it meets stops it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from vlmend.models.checkup.checks import Finding, checkup, constant_view
from vlmend.models.checkup.outside import checkup_dual, checkup_replies
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget, full_digest, hook_count, tiny_clip, tiny_vlm
from vlmend.testing.fakes import TEMPLATE


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in findings}


@pytest.fixture(scope="module")
def found(tiny: VLM) -> dict[str, Finding]:
    return by_name(checkup(tiny))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class", "LlavaForConditionalGeneration"),
        ("decoder blocks", "4 at model.language_model.layers (LlamaDecoderLayer), width 32"),
        ("vision tower", "model.vision_tower (CLIPVisionModel), 2 CLIPEncoderLayer"),
        ("projector", "model.multi_modal_projector (LlavaMultiModalProjector)"),
        ("image token", "3 <image>"),
        ("eos token", "1 <eos>"),
        ("pad token", "0 <pad>"),
        ("image request", "[user]<image>What is in this picture?[assistant]"),
        ("size rule", "CLIPImageProcessorPil: size height 16 width 16, crop_size height 16 width 16"),
        ("tokens", "4 for 16 x 16, 4 for 8 x 8, 4 for 32 x 32"),  # a 2 x 2 grid of patches, whatever came in
        ("dtype", "float32"),
        ("attention", "sdpa"),
        ("quantisation", "none"),
        ("cache", "DynamicCache (DynamicLayer)"),
        ("batches", "together, padded on the left"),
    ],
)
def test_what_a_model_is_made_of(name: str, value: str, found: dict[str, Finding]) -> None:
    assert (found[name].value, found[name].ok) == (value, None)


def test_the_memory_of_the_weights_is_counted(found: dict[str, Finding], tiny: VLM) -> None:
    sizes = [t.numel() * t.element_size() for t in (*tiny.model.parameters(), *tiny.model.buffers())]
    assert found["weights"].value == f"{sum(sizes) / 1e3:.1f} kB"


def test_every_check_of_a_sound_model_passes(found: dict[str, Finding]) -> None:
    checks = [one for one in found.values() if one.part in ("live", "supported")]
    assert len(checks) == 13
    assert [one for one in checks if one.ok is not True] == []


def test_a_checkup_leaves_the_model_as_it_was(tiny: VLM) -> None:
    before = full_digest(tiny.model), hook_count(tiny.model)
    checkup(tiny)
    assert (full_digest(tiny.model), hook_count(tiny.model)) == before


def test_a_tower_that_no_image_reaches_fails_its_check_and_no_other_stops() -> None:
    vlm = tiny_vlm()
    unused = copy.deepcopy(vlm.anatomy.vision)
    bypassed = replace(vlm, anatomy=replace(vlm.anatomy, vision=unused))
    found = by_name(checkup(bypassed))
    assert found["images reach the tower"].ok is False
    assert "never reached the vision tower" in found["images reach the tower"].value
    assert found["decoder blocks"].value.startswith("4 at")
    assert found["text-only is text only"].ok is True


def test_a_model_whose_code_fails_is_reported_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a family does whose forward call vlmend cannot make."""
    vlm = tiny_vlm()

    def refuse(*_: object, **__: object) -> None:
        raise KeyError("pixel_grid")

    monkeypatch.setattr(vlm.model, "forward", refuse)
    found = by_name(checkup(vlm))
    assert found["batch and single agree"] == Finding(
        "live", "batch and single agree", "failed with KeyError: 'pixel_grid'", False
    )
    assert found["adapters"].ok is False
    assert found["class"].ok is None


def test_a_template_without_system_turns_is_said_to_have_none() -> None:
    deaf = TEMPLATE.replace(
        "[{{ message['role'] }}]", "{% if message['role'] == 'system' %}{% continue %}{% endif %}[x]"
    )
    found = by_name(checkup(tiny_vlm(template=deaf)))
    assert found["system turn"] == Finding("live", "system turn", "the template leaves the system turn out", False)


def test_a_blind_model_is_found_out() -> None:
    """Pictures reach the tower, but the projector gives nothing on."""
    vlm = tiny_vlm()
    for parameter in vlm.model.model.multi_modal_projector.parameters():
        torch.nn.init.zeros_(parameter)
    found = by_name(checkup(vlm))
    assert found["images reach the tower"].ok is True
    assert found["images change the answer"] == Finding(
        "live", "images change the answer", "two different pictures give the same logits", False
    )


def test_long_requests_are_shown_by_their_ends() -> None:
    found = by_name(checkup(tiny_vlm(template="a" * 300 + TEMPLATE)))
    shown = found["text-only request"].value
    assert len(shown) == 80 + len(" ... ") + 80
    assert shown.endswith("[assistant]")


def test_several_end_tokens_are_all_named() -> None:
    vlm = tiny_vlm()
    vlm.model.generation_config.eos_token_id = [1, 0]
    assert by_name(checkup(vlm))["eos token"].value == "0 <pad>, 1 <eos>"


def test_half_precision_is_allowed_its_own_rounding(found: dict[str, Finding]) -> None:
    half = by_name(checkup(tiny_vlm(dtype=torch.bfloat16)))
    assert half["dtype"].value == "bfloat16"
    assert half["batch and single agree"].ok is True
    assert half["batch and single agree"].value != found["batch and single agree"].value


def test_a_model_whose_rows_depend_on_their_company_is_found_out() -> None:
    """The output of the first block loses the mean over the batch."""
    vlm = tiny_vlm()
    vlm.anatomy.blocks[0].register_forward_hook(lambda module, args, out: out - out.mean(0) if len(out) > 1 else out)
    found = by_name(checkup(vlm))
    assert found["batch and single agree"].ok is False
    assert found["batch and single agree"].value.endswith("results depend on the company of a request")


def test_the_constant_view_edits_every_block_and_token(tiny: VLM) -> None:
    edits = constant_view(tiny).edits
    assert [(edit.site.layer, edit.tokens, edit.when) for edit in edits] == [(k, "all", "always") for k in range(4)]  # type: ignore[union-attr]


def test_a_dual_encoder_is_tried_too() -> None:
    findings = checkup_dual(tiny_clip())
    assert [one.name for one in findings] == [
        "kind",
        "images change the answer",
        "batch and single agree",
        "ranks texts",
    ]
    assert [one.ok for one in findings] == [None, True, True, True]


def test_a_model_that_gives_replies_alone_is_tried_as_text_beside_an_image_and_after_a_system_turn() -> None:
    names = ["answers", "image taken", "system turn"]
    assert [(one.name, one.ok) for one in checkup_replies(ScriptedTarget(lambda *_: "red"))[1:]] == [
        (name, True) for name in names
    ]
    assert [one.ok for one in checkup_replies(ScriptedTarget(lambda *_: ""))[1:]] == [False] * 3
