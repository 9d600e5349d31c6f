"""Export to transformers: the checkpoint is the hooked model, or there is none."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    Edit,
    FilterImage,
    Gate,
    LoadAdapter,
    ModuleEdit,
    ProjectOut,
    ReplaceWeights,
    RewritePrompt,
    Tokens,
    When,
)
from vlmend.core.images import blank_image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import fingerprint
from vlmend.core.sites import Site
from vlmend.data.sources import builtin_dataset
from vlmend.errors import BadParameter, ModelProblem, RunProblem, UsageError
from vlmend.export import hf
from vlmend.export.checkpoint.folding import vectors_of
from vlmend.export.checkpoint.refusals import refusals
from vlmend.export.hf import EXPORTER, export_hf
from vlmend.methods.safety.cmrm import CMRM
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.testing import full_digest, hook_count, tiny_vlm

GREEDY = Sampling(max_new_tokens=12)
MIXED = [
    Conversation.ask("short"),
    Conversation.ask("with a picture", noise_image(16, 3)),
    Conversation((Turn("system", "be kind"), Turn("user", "a longer one", (blank_image(16),)))),
]
SHAPE = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
}  # fmt: skip


def mended(vlm: VLM, *edits: Edit) -> VLM:
    return vlm.with_mend(
        Mend(edits, MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test"))
    )


def push(layer: int, tokens: Tokens = "all", when: When = "always", gate: Gate | None = None) -> AddVector:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(layer))
    return AddVector(Site("language", layer), vector, tokens, when, gate)


def llava(text: PreTrainedConfig) -> VLM:
    """The tiny LLaVA with another language model."""
    base = tiny_vlm(layers=2)
    config = LlavaConfig(
        vision_config=base.model.config.vision_config, text_config=text, image_token_index=3,
        vision_feature_layer=-1, image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = LlavaForConditionalGeneration(config).eval()
    return VLM("tiny-other", model, base.processor, find_anatomy(model), fingerprint(model))


@pytest.fixture(scope="module")
def base() -> VLM:
    return tiny_vlm(layers=3)


@pytest.fixture(scope="module")
def view(base: VLM) -> VLM:
    """Two edits at one site, one at another."""
    return mended(base, push(0), push(2), replace(push(2), vector=torch.linspace(-1, 1, 32)))


@pytest.fixture(scope="module")
def made(view: VLM, tmp_path_factory: pytest.TempPathFactory) -> hf.Exported:
    return export_hf(view, tmp_path_factory.mktemp("export") / "folded")


def test_the_checkpoint_has_the_logits_and_replies_of_the_hooked_model(view: VLM, made: hf.Exported) -> None:
    folded = load(made.folder)
    torch.testing.assert_close(folded.logits(MIXED), view.logits(MIXED), atol=1e-5, rtol=0)
    replies = [reply.text for reply in folded.generate(MIXED, GREEDY)]
    assert replies == [reply.text for reply in view.generate(MIXED, GREEDY)]
    assert replies != [reply.text for reply in replace(view, mends=()).generate(MIXED, GREEDY)]
    assert folded.model_digest == made.model_digest


def test_a_stock_installation_reads_it_without_vlmend(view: VLM, made: hf.Exported) -> None:
    picture = view.reader.inputs([MIXED[1]])["pixel_values"]
    torch.save(picture, made.folder.parent / "picture.pt")
    code = """
import json, sys
sys.modules["vlmend"] = None
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, picture = sys.argv[1:]
model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "with a picture"}]}]
processor = AutoProcessor.from_pretrained(folder)
text = processor.apply_chat_template(said, add_generation_prompt=True).replace("<image>", "<image>" * 4)
inputs = processor.tokenizer(text, return_tensors="pt")
with torch.inference_mode():
    logits = model.eval()(**inputs, pixel_values=torch.load(picture)).logits[0, -1]
print(json.dumps({"logits": logits.tolist(), "info": [len(info[k]) for k in ("missing_keys", "unexpected_keys")]}))
"""
    found = subprocess.run(
        [sys.executable, "-c", code, str(made.folder), str(made.folder.parent / "picture.pt")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["info"] == [0, 0]
    torch.testing.assert_close(torch.tensor(told["logits"]), view.logits([MIXED[1]])[0], atol=1e-5, rtol=0)


def test_nothing_but_the_edited_blocks_biases_differs_from_the_base(base: VLM, made: hf.Exported) -> None:
    before, after = base.model.state_dict(), load(made.folder).model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    filled = sorted(name for name in set(after) - set(before) if after[name].any())
    assert filled == [f"model.language_model.layers.{layer}.mlp.down_proj.bias" for layer in (0, 2)]
    assert torch.equal(after[filled[1]], push(2).vector + torch.linspace(-1, 1, 32))


def test_the_base_is_as_it_was(tmp_path: Path) -> None:
    vlm = tiny_vlm(layers=2)
    vlm.logits(MIXED)  # transformers puts hooks of its own on the vision tower at its first image
    before = full_digest(vlm.model), hook_count(vlm.model)
    export_hf(mended(vlm, push(1)), tmp_path / "out", dtype="bfloat16")
    assert (full_digest(vlm.model), hook_count(vlm.model)) == before
    assert vlm.model.config.text_config.mlp_bias is False


def test_scale_zero_exports_the_base_unchanged(base: VLM, tmp_path: Path) -> None:
    mend = mended(base, push(0, "last", "with_image"), RewritePrompt(before="Be kind.")).mends[0]
    export_hf(base.with_mend(mend.scaled(0.0)), tmp_path / "out")
    loaded = load(tmp_path / "out")
    assert full_digest(loaded.model) == full_digest(base.model)
    assert loaded.model.config.text_config.mlp_bias is False


def test_a_checkpoint_with_biases_takes_another_mend_on_top(made: hf.Exported, tmp_path: Path) -> None:
    again = mended(load(made.folder), push(2))
    export_hf(again, tmp_path / "out")
    torch.testing.assert_close(load(tmp_path / "out").logits(MIXED), again.logits(MIXED), atol=1e-5, rtol=0)


def test_saved_in_16_bits_it_is_in_16_bits(view: VLM, tmp_path: Path) -> None:
    export_hf(view, tmp_path / "out", dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    rounded = load(tmp_path / "out").logits(MIXED)  # 8 bits of mantissa: a few per cent at most
    assert (rounded - view.logits(MIXED)).abs().max() < 0.1 * view.logits(MIXED).abs().max()


def test_the_card_tells_base_mend_difference_and_licence(view: VLM, made: hf.Exported) -> None:
    card = (made.folder / "README.md").read_text()
    told = (view.name, view.model_digest, view.mends[0].digest, made.model_digest, "layers 0, 2.", "Licence")
    assert [text for text in told if text not in card] == []
    assert "text-only requests too" not in card


def test_edits_for_image_requests_need_a_word_and_then_reach_text_only_ones(base: VLM, tmp_path: Path) -> None:
    pictured = mended(base, push(1, when="with_image"))
    with pytest.raises(UsageError, match="--always"):
        export_hf(pictured, tmp_path / "out")
    made = export_hf(pictured, tmp_path / "out", always=True)
    moved = (load(made.folder).logits(MIXED) - base.logits(MIXED)).abs().amax(1)
    assert torch.equal(pictured.logits(MIXED[:1]), base.logits(MIXED[:1]))
    assert moved[0] > 0.01
    assert made.text_moved > 0.01
    assert "text-only requests too" in (made.folder / "README.md").read_text()


def test_every_reason_is_told_at_once(base: VLM, tmp_path: Path) -> None:
    gate = Gate(Site("language", 0), torch.ones(32), 0.0)
    edits = (
        push(0, "last_prompt"), push(1, "last_prompt"), push(1, gate=gate),
        ProjectOut(Site("language", 1), torch.eye(32)[:1]),
        FilterImage("jpeg", 50.0),
        RewritePrompt(before="Be kind."),
    )  # fmt: skip
    with pytest.raises(UsageError) as problem:
        export_hf(mended(base, *edits), tmp_path / "out")
    told = problem.value.message
    assert "2 edits: It acts at tokens='last_prompt'" in told
    assert [word for word in ("gate", "ProjectOut", "FilterImage", "RewritePrompt") if word not in told] == []
    assert told.count("\n  - ") == 5
    assert list(tmp_path.iterdir()) == []


def test_adapters_and_weights_in_every_tower_are_merged(base: VLM, tmp_path: Path) -> None:
    """Beside a vector, in tower, projector and decoder; the checkpoint needs no hook for any."""
    up, tower = "model.language_model.layers.0.mlp.up_proj", "model.vision_tower.encoder.layers.0.mlp.fc1"
    draw = torch.Generator().manual_seed(0)
    value = torch.randn(base.model.get_submodule(tower).weight.shape, generator=draw)
    edits = (
        push(1),
        LoadAdapter(up, torch.randn(2, 32, generator=draw), torch.randn(64, 2, generator=draw), strength=0.02),
        LoadAdapter("model.multi_modal_projector.linear_1", torch.full((1, 16), 0.1), torch.ones(32, 1)),
        ReplaceWeights(f"{tower}.weight", value, strength=0.1),
    )  # fmt: skip
    view = mended(base, *edits)
    before = full_digest(base.model)
    made = export_hf(view, tmp_path / "out")
    assert made.weights == (f"{up}.weight", "model.multi_modal_projector.linear_1.weight", f"{tower}.weight")
    torch.testing.assert_close(load(tmp_path / "out").logits(MIXED), view.logits(MIXED), atol=1e-4, rtol=0)
    assert full_digest(base.model) == before
    assert f"`{tower}.weight`" in (tmp_path / "out" / "README.md").read_text()


def test_tied_weights_are_replaced_in_both_places_or_the_adapter_is_refused(tmp_path: Path) -> None:
    vlm = llava(LlamaConfig(**SHAPE, tie_word_embeddings=True))
    head = vlm.model.lm_head.weight
    assert head is vlm.model.model.language_model.embed_tokens.weight
    told = refusals(mended(vlm, LoadAdapter("lm_head", torch.ones(1, 32), torch.ones(99, 1))), False)
    assert told == ["The weight of lm_head is shared with another module. Keep the hooks."]


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (AffineMap(Site("language", 0), torch.ones(1, 32), torch.ones(32, 1), torch.ones(32)), "depends on the state"),
        (ModuleEdit(Site("language", 0), torch.ones(1, 32), torch.ones(1), torch.ones(32, 1), torch.ones(32)),
         "a layer of its own"),
        (FilterImage("blur", 2.0), "images before the processor"),
    ],
)  # fmt: skip
def test_what_weights_cannot_hold_is_refused_with_the_true_reason(edit: Edit, why: str, base: VLM) -> None:
    (told,) = EXPORTER.refusals(mended(base, edit), {})
    assert why in told


def test_the_exporter_takes_options_by_name_and_no_others(base: VLM, tmp_path: Path) -> None:
    made = EXPORTER.write(mended(base, push(0)), tmp_path / "out", {"dtype": "bfloat16"})
    assert (made["dtype"], made["layers"]) == ("bfloat16", (0,))
    with pytest.raises(BadParameter, match="no option colour"):
        EXPORTER.write(mended(base, push(0)), tmp_path / "other", {"colour": 1})


def test_cmrm_at_every_token_can_be_exported_and_is_another_mend(base: VLM, tmp_path: Path) -> None:
    data = builtin_dataset(("harmful",), "anchor")
    some = replace(data, examples=data.examples[:4])
    fits = (CMRM(scope=scope, only_with_image=False) for scope in ("prefill", "every_token"))
    narrow, wide = (fit.fit(base, some, seed=0) for fit in fits)
    export_hf(base.with_mend(wide), tmp_path / "out")
    hooked = base.with_mend(wide).logits(MIXED)
    torch.testing.assert_close(load(tmp_path / "out").logits(MIXED), hooked, atol=1e-5, rtol=0)
    assert (hooked - base.with_mend(narrow).logits(MIXED)).abs().max() > 0.01


def test_edits_of_one_site_add_up(view: VLM) -> None:
    vectors = vectors_of(view)
    assert list(vectors) == [0, 2]
    assert torch.equal(vectors[2], push(2).vector + torch.linspace(-1, 1, 32))


def refused(vlm: VLM, out: Path) -> str:
    with pytest.raises(UsageError) as problem:
        export_hf(mended(vlm, push(0), push(1)), out)
    return problem.value.message


def test_a_text_model_without_the_flag_is_refused(tmp_path: Path) -> None:
    told = refused(llava(Qwen2Config(**SHAPE)), tmp_path / "out")
    assert "Qwen2Config has no flag" in told
    assert told.count("\n  - ") == 1


def test_a_norm_behind_the_mlp_is_refused(tmp_path: Path) -> None:
    told = refused(llava(Gemma3TextConfig(**SHAPE, head_dim=8)), tmp_path / "out")
    assert "Layers 0, 1: a norm or a factor behind mlp.down_proj" in told
    assert "Gemma3TextConfig has no flag" in told


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_a_factor_behind_the_mlp_is_found_by_measuring(factor: float, tmp_path: Path) -> None:
    """The same family, with and without the factor."""
    vlm = llava(GraniteConfig(**SHAPE, residual_multiplier=factor))
    if factor == 1:
        export_hf(mended(vlm, push(0), push(1)), tmp_path / "out")
        assert load(tmp_path / "out").layers == 2
    else:
        told = refused(vlm, tmp_path / "out")
        assert "factor behind mlp.down_proj" in told
        assert told.count("\n  - ") == 1


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    told = refused(llava(MixtralConfig(**SHAPE, num_local_experts=2, num_experts_per_tok=1)), tmp_path / "out")
    assert "Layers 0, 1: a mixture of experts" in told


def test_shared_weights_are_refused(tmp_path: Path) -> None:
    vlm = tiny_vlm(layers=2)
    first, second = vlm.anatomy.blocks
    second.mlp.down_proj.weight = first.mlp.down_proj.weight
    assert "weights shared with other blocks" in refused(replace(vlm, model_digest=fingerprint(vlm.model)), tmp_path)


def test_quantised_and_16_bit_weights_are_refused(tmp_path: Path) -> None:
    assert "not loaded in float32" in refused(tiny_vlm(layers=2, dtype=torch.bfloat16), tmp_path / "out")
    vlm = tiny_vlm(layers=2)
    vlm.model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    assert "quantised" in refused(vlm, tmp_path / "out")


@pytest.mark.parametrize("site", [Site("language", 7), Site("language", 0, "mlp_out")], ids=str)
def test_a_site_that_is_no_blocks_output_is_refused(base: VLM, tmp_path: Path, site: Site) -> None:
    with pytest.raises(UsageError) as problem:
        export_hf(mended(base, replace(push(0), site=site)), tmp_path / "out")
    assert str(site) in problem.value.message


def test_a_difference_from_the_hooks_stops_the_export(
    view: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding alone is some 1e-7, so a bound of 1e-12 is broken."""
    monkeypatch.setattr(hf, "TOLERANCE", 1e-12)
    with pytest.raises(ModelProblem, match="differs from its hooks"):
        export_hf(view, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_load_again_is_not_kept(tmp_path: Path) -> None:
    """A base without a chat template: vlmend itself could not read the checkpoint."""
    vlm = tiny_vlm(layers=2)
    vlm.processor.chat_template = None
    with pytest.raises(ModelProblem, match="does not load again"):
        hf._write(vlm, hf.Exported(tmp_path / "out", "mute", "", "", (), (), (), False, 0.0, 0.0, "float32"), "card")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(view: VLM, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunProblem, match="not empty"):
        export_hf(view, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_too_little_room_is_told_before_any_work(view: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(RunProblem, match=r"0\.00 GB free"):
        export_hf(view, tmp_path / "deeper" / "out")


@pytest.fixture
def files_to_100_kb() -> Iterator[None]:
    """What a full disk does to a write: it ends in an error half way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("files_to_100_kb")
def test_a_write_that_fails_half_way_leaves_nothing(view: VLM, tmp_path: Path) -> None:
    with pytest.raises(RunProblem, match="cannot be written"):
        export_hf(view, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_verb_exports_a_users_folder(
    base: VLM, view: VLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlmend.cli import app

    base.model.save_pretrained(tmp_path / "model")
    base.processor.save_pretrained(tmp_path / "model")
    view.mends[0].save(tmp_path / "mend")
    app(
        ["export", "hf", str(tmp_path / "model"), "--mend", str(tmp_path / "mend"), "--out", str(tmp_path / "out"),
         "--device", "cpu", "--json"],
        standalone_mode=False,
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["layers"] == [0, 2]
    assert told["model_digest"] == load(tmp_path / "out").model_digest
