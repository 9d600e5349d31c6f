"""The control vector: what the file holds, what is refused, and llama.cpp's own logits with it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, Edit, Gate
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem, RunProblem, UsageError
from vlmend.export import gguf as exporting
from vlmend.export.gguf import EXPORTER, VECTORS
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

LLAMA = os.environ.get("VLMEND_LLAMA_PYTHON", "")
WIDTH = 32


def vector(seed: int) -> torch.Tensor:
    return 2 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def pushed(vlm: VLM, *edits: Edit) -> VLM:
    card = MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test")
    return vlm.with_mend(Mend(edits, card))


def everywhere(layer: int, seed: int, **given: Any) -> AddVector:
    return AddVector(Site("language", layer), vector(seed), "all", **given)


def test_the_file_holds_the_sum_of_each_block_under_its_number_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    view = pushed(tiny_vlm(), everywhere(1, 1), everywhere(3, 2), everywhere(1, 3))
    made = EXPORTER.write(view, tmp_path / "out", {})
    reader = GGUFReader(tmp_path / "out" / VECTORS)
    assert [(t.name, t.tensor_type, [*t.shape]) for t in reader.tensors] == [
        ("direction.1", GGMLQuantizationType.F32, [WIDTH]), ("direction.3", GGMLQuantizationType.F32, [WIDTH]),
    ]  # fmt: skip
    assert torch.equal(torch.tensor(reader.tensors[0].data), vector(1) + vector(3))
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.layer_count"].contents() == 4
    assert (made["blocks"], made["error"] <= 1e-5) == ([1, 3], True)
    assert view.model_digest in (tmp_path / "out" / "README.md").read_text()
    assert [*tmp_path.iterdir()] == [tmp_path / "out"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (everywhere(0, 1), "leaves block 0 as it is"),
        (AddVector(Site("language", 1), vector(1), "last"), "tokens='last'"),
        (everywhere(1, 1, when="with_image"), "pass --always"),
        (everywhere(1, 1, gate=Gate(Site("language", 0), vector(2), 0.0)), "A gate opens it"),
    ],
)
def test_what_a_vector_cannot_do_is_refused(edit: AddVector, said: str, tmp_path: Path) -> None:
    view = pushed(tiny_vlm(), edit)
    with pytest.raises(UsageError, match=said):
        EXPORTER.write(view, tmp_path / "out", {})
    assert not any(tmp_path.iterdir())


def test_a_mend_for_image_requests_goes_with_always_and_nothing_alone_is_refused(tmp_path: Path) -> None:
    view = pushed(tiny_vlm(), everywhere(1, 1, when="with_image"))
    assert EXPORTER.write(view, tmp_path / "out", {"always": True})["error"] <= 1e-5
    with pytest.raises(RunProblem, match="already"):
        EXPORTER.write(view, tmp_path / "out", {"always": True})
    with pytest.raises(UsageError, match="no edit"):
        EXPORTER.write(tiny_vlm(), tmp_path / "other", {})


def test_a_file_that_reads_back_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = exporting.read_directions
    monkeypatch.setattr(exporting, "read_directions", lambda file: {k + 1: v for k, v in read(file).items()})
    with pytest.raises(ModelProblem, match="does not read back"):
        EXPORTER.write(pushed(tiny_vlm(), everywhere(1, 1)), tmp_path / "out", {})
    assert not any(tmp_path.iterdir())


def as_llama(vlm: VLM, file: Path) -> None:
    """The text model of a tiny LLaVA as llama.cpp reads it, in float32 and without a tokenizer."""
    text, config = vlm.model.model.language_model, vlm.model.config.text_config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    def put(name: str, weight: torch.Tensor) -> None:
        writer.add_tensor(f"{name}.weight", weight.detach().float().contiguous().numpy())

    put("token_embd", text.embed_tokens.weight)
    put("output_norm", text.norm.weight)
    put("output", vlm.model.lm_head.weight)
    for k, block in enumerate(text.layers):
        attention, mlp = block.self_attn, block.mlp
        put(f"blk.{k}.attn_q", turned(attention.q_proj.weight, heads))
        put(f"blk.{k}.attn_k", turned(attention.k_proj.weight, groups))
        put(f"blk.{k}.attn_v", attention.v_proj.weight)
        put(f"blk.{k}.attn_output", attention.o_proj.weight)
        put(f"blk.{k}.attn_norm", block.input_layernorm.weight)
        put(f"blk.{k}.ffn_norm", block.post_attention_layernorm.weight)
        put(f"blk.{k}.ffn_gate", mlp.gate_proj.weight)
        put(f"blk.{k}.ffn_up", mlp.up_proj.weight)
        put(f"blk.{k}.ffn_down", mlp.down_proj.weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows in the order of llama.cpp's rotary embedding: pairs side by side, not halves."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA, reason="VLMEND_LLAMA_PYTHON names no Python with llama-cpp-python")
def test_llama_cpp_with_the_vector_gives_the_logits_of_the_mend(tmp_path: Path) -> None:
    vlm = tiny_vlm(seed=0)
    view = pushed(vlm, everywhere(1, 1), everywhere(2, 2), everywhere(3, 3))
    EXPORTER.write(view, tmp_path / "out", {})
    as_llama(vlm, tmp_path / "model.gguf")
    words = [Conversation.ask("Name three colours.")]
    asked = vlm.reader.inputs(words)
    tokens = asked["input_ids"][0].tolist()
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    script, out = Path(__file__).with_name("llama_logits.py"), tmp_path / "logits.json"
    files = [tmp_path / "model.gguf", tmp_path / "out" / VECTORS, tmp_path / "tokens.json", out]
    subprocess.run([LLAMA, str(script), *map(str, files)], check=True, capture_output=True, timeout=300)
    theirs = json.loads(out.read_text())
    for name, one in (("plain", vlm), ("steered", view)):
        with torch.inference_mode(), one.installed(words, vlm.reader.rows(words, asked)):
            ours = vlm.model(**asked).logits[0].float().numpy()
        found = np.array(theirs[name], dtype=np.float32)
        error = float(np.abs(found - ours).max() / np.abs(ours).max())
        print(f"llama-cpp-python {theirs['version']}, {name}: {error:.1e} of the largest logit")
        assert error < 1e-4
    moved = float(np.abs(np.array(theirs["steered"]) - np.array(theirs["plain"])).max())
    assert moved > 1  # it fired
