"""The exporter vllm: what is written equals the hooks, what cannot be carried is refused, and vLLM's own tokens."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from vlmend.core.conversation import Conversation
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    CosineDose,
    Edit,
    Gate,
    LoadAdapter,
    MahalanobisGate,
    ModuleEdit,
    NeighbourGate,
    ProjectOut,
    RewritePrompt,
)
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem, RunProblem, UsageError
from vlmend.export import vllm as exporting
from vlmend.export.engine.proving import greedy
from vlmend.export.vllm import EXPORTER
from vlmend.export.vllm_plugin.mends import MANIFEST, TENSORS, MendError, listed, read
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

PYTHON = os.environ.get("VLMEND_VLLM_PYTHON", "")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(draw(width, seed=seed), dim=0)


def at(layer: int) -> Site:
    return Site("language", layer)


def mended(vlm: VLM, *edits: Edit) -> VLM:
    card = MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test")
    return vlm.with_mend(Mend(edits, card))


def sets(width: int) -> dict[str, list[Edit]]:
    """Mends that have every kind, scope and gate between them, by name."""
    thin, back = 0.1 * draw(2, width, seed=5), 0.1 * draw(width, 2, seed=6)
    gate = Gate(at(1), draw(width, seed=9), 0.0)
    far = MahalanobisGate(at(0), draw(2, width, seed=7), torch.zeros(2), torch.eye(2), torch.ones(2), 2 * torch.eye(2))
    near = NeighbourGate(at(0), draw(3, width, seed=8), draw(9, 3, seed=1), draw(9, 3, seed=2), 2)
    return {
        "last": [AddVector(at(k), 1.5 * draw(width, seed=k), "last") for k in range(4)],
        "mixed": [
            AddVector(at(1), draw(width, seed=1), "all"), ProjectOut(at(2), unit(width, 2)[None], 1.0, "last"),
            CosineDose(at(2), unit(width, 3), draw(width, seed=4), 2.0, "reply"),
            AffineMap(at(3), thin, back, draw(width, seed=2), 1.0, "same", "prompt"),
            ModuleEdit(at(3), thin, torch.ones(2), back, draw(width, seed=3), 1.0, "last_prompt"),
        ],
        "gated": [
            *(AddVector(at(k), 3 * draw(width, seed=k), "last", gate=gate) for k in (1, 2, 3)),
            ProjectOut(at(2), unit(width, 5)[None], 1.0, "last", gate=far),
            AddVector(at(3), draw(width, seed=12), "last", gate=near),
        ],
        "whole": [
            AddVector(at(2), 3 * draw(width, seed=2), "all", gate=gate),
            AffineMap(at(3), thin, back, draw(width, seed=2), 1.0, "last_prompt", "prompt"),
        ],
        "image": [
            AddVector(at(2), 3 * draw(width, seed=2), "image", "with_image"),
            AddVector(at(3), 3 * draw(width, seed=3), "last", "with_image"),
        ],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["last", "mixed", "gated", "whole", "image"])
def test_the_plug_in_gives_the_logits_and_the_folder_the_tokens_of_the_hooks(name: str, tmp_path: Path) -> None:
    view = mended(tiny_vlm(), *sets(32)[name])
    made = EXPORTER.write(view, tmp_path / "out", {})
    assert made["error"] <= 1e-5
    mend = read(tmp_path / "out")
    assert mend.whole == made["whole"] == (name == "whole")
    assert (mend.depth, mend.width, mend.vocabulary) == (4, 32, view.model.config.text_config.vocab_size)
    asked = Conversation.ask("Name three colours.")
    assert mend.probes[0].mended == greedy(view, asked, 16)
    moved = [probe.base != probe.mended for probe in mend.probes]
    assert any(moved) != (name == "image")  # the probes have no picture
    assert [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_a_folder_that_holds_another_vector_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = mended(tiny_vlm(), *sets(32)["last"])

    def wrong(folder: Path) -> Any:
        mend = read(folder)
        edits = [edit | {"vector": edit["vector"] + 0.01 * (k == 3)} for k, edit in enumerate(mend.edits)]
        return replace(mend, edits=edits)

    monkeypatch.setattr(exporting, "read", wrong)
    with pytest.raises(ModelProblem, match="differs from the hooks"):
        EXPORTER.write(view, tmp_path / "out", {})
    assert not any(tmp_path.iterdir())


def test_a_mend_for_image_requests_reaches_text_only_ones_with_always_alone(tmp_path: Path) -> None:
    view = mended(tiny_vlm(), *sets(32)["image"])
    EXPORTER.write(view, tmp_path / "as_it_is", {})
    EXPORTER.write(view, tmp_path / "always", {"always": True})
    plain, always = read(tmp_path / "as_it_is"), read(tmp_path / "always")
    assert [probe.mended for probe in plain.probes] == [probe.base for probe in plain.probes]
    assert [probe.mended for probe in always.probes] != [probe.base for probe in always.probes]
    assert plain.name != always.name  # another mend
    with pytest.raises(RunProblem, match="already"):
        EXPORTER.write(view, tmp_path / "always", {})


def test_what_no_state_holds_is_refused_with_a_way_out(tmp_path: Path) -> None:
    vlm = tiny_vlm()
    adapter = LoadAdapter("model.language_model.layers.0.mlp.down_proj", draw(1, 64), draw(32, 1))
    view = mended(vlm, RewritePrompt(before="Be kind. "), adapter, AddVector(at(1), draw(32), "last"))
    with pytest.raises(UsageError, match=r"(?s)RewritePrompt acts on prompt.*LoadAdapter changes weights. Export hf"):
        EXPORTER.write(view, tmp_path / "out", {})
    with pytest.raises(UsageError, match="no edit"):
        EXPORTER.write(vlm, tmp_path / "out", {})
    assert not any(tmp_path.iterdir())


def test_the_folder_is_a_package_with_vllms_entry_point_and_the_plug_ins_very_source(tmp_path: Path) -> None:
    EXPORTER.write(mended(tiny_vlm(), *sets(32)["last"]), tmp_path / "out", {})
    told = tomllib.loads((tmp_path / "out" / "pyproject.toml").read_text())["project"]
    assert told["entry-points"] == {"vllm.general_plugins": {"vlmend": "vlmend_vllm.engine:register"}}
    source = Path(exporting.__file__).with_name("vllm_plugin")
    for file in source.glob("*.py"):
        assert (tmp_path / "out" / "vlmend_vllm" / file.name).read_text() == file.read_text()
        assert "vlmend." not in "".join(
            line for line in file.read_text().splitlines() if line.startswith(("import", "from"))
        )  # it stands alone


def test_halves_of_two_mends_another_format_and_one_mend_twice_are_refused(tmp_path: Path) -> None:
    EXPORTER.write(mended(tiny_vlm(), *sets(32)["last"]), tmp_path / "one", {})
    EXPORTER.write(mended(tiny_vlm(), *sets(32)["mixed"]), tmp_path / "two", {})
    assert [*listed(f"{tmp_path / 'two'}{os.pathsep}{tmp_path / 'one'}")] == [
        read(tmp_path / k).name for k in ("two", "one")
    ]
    with pytest.raises(MendError, match="twice"):
        listed(f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'one'}")
    (tmp_path / "two" / TENSORS).write_bytes((tmp_path / "one" / TENSORS).read_bytes())
    with pytest.raises(MendError, match=r"is not the one that .* was written with"):
        read(tmp_path / "two")
    told = json.loads((tmp_path / "one" / MANIFEST).read_text()) | {"format": 9}
    (tmp_path / "one" / MANIFEST).write_text(json.dumps(told))
    with pytest.raises(MendError, match="format 9"):
        read(tmp_path / "one")
    with pytest.raises(MendError, match="holds no mend"):
        read(tmp_path)


def wide_vlm() -> VLM:
    """As `tiny_vlm`, with heads of 64 numbers, which vLLM's CPU kernels ask for."""
    vlm = tiny_vlm()
    config = vlm.model.config
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads = 128, 256, 2, 1
    text.head_dim, text.max_position_embeddings = 64, 512
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = type(vlm.model)(config).eval()
    model.generation_config = vlm.model.generation_config
    return VLM("wide", model, vlm.processor, find_anatomy(model), "wide")


def saved_text_model(vlm: VLM, folder: Path) -> None:
    """The text model alone, as a Llama that vLLM reads."""
    made = LlamaForCausalLM(vlm.model.config.text_config)
    made.model.load_state_dict(vlm.model.model.language_model.state_dict())
    made.lm_head.load_state_dict(vlm.model.lm_head.state_dict())
    made.generation_config = vlm.model.generation_config
    made.save_pretrained(folder)
    vlm.processor.tokenizer.save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="VLMEND_VLLM_PYTHON names no Python with vLLM")
@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("last", "mixed", "gated", "image"), []),
        (("last", "mixed", "gated"), ["--tokens", "32"]),
        (("last", "mixed", "gated"), ["--blocks", "9"]),
        (("whole", "last"), ["--whole"]),
    ],
    ids=["one batch", "prompts in parts", "thrown out and read again", "whole prompts"],
)
def test_vllm_says_the_tokens_of_the_hooks(names: tuple[str, ...], options: list[str], tmp_path: Path) -> None:
    vlm = wide_vlm()
    saved_text_model(vlm, tmp_path / "model")
    for name in names:
        EXPORTER.write(mended(vlm, *sets(128)[name]), tmp_path / name, {})
    script, out = Path(__file__).with_name("vllm_tokens.py"), tmp_path / "out.json"
    folders = [str(tmp_path / name) for name in names]
    site = Path(exporting.__file__).parent
    run_in_vllm([str(script), str(tmp_path / "model"), str(out), *folders, *options], tmp_path, site)
    told = json.loads(out.read_text())
    print(f"vLLM {told['vllm']}: {len(told['rows'])} replies of 16 tokens, preempted {told['preempted']}")
    assert all(row["same"] for row in told["rows"])
    assert sum(row["moved"] for row in told["rows"] if row["mend"] != "base") >= 6  # the mends do something
    assert bool(told["preempted"]) == ("--blocks" in options)
    assert told["default"]  # no extra argument: the first mend
    assert "is no mend of this engine" in told["unknown"]
    assert "handed over its output 0 times" in told["bypassed"]


def run_in_vllm(command: list[str], folder: Path, site: Path) -> None:
    """In vLLM's Python, with the plug-in's source as an installed package."""
    (folder / "site" / "vlmend_vllm-0.dist-info").mkdir(parents=True)
    (folder / "site" / "vlmend_vllm").symlink_to(site / "vllm_plugin")
    entry = "[vllm.general_plugins]\nvlmend = vlmend_vllm.engine:register\n"
    (folder / "site" / "vlmend_vllm-0.dist-info" / "entry_points.txt").write_text(entry)
    (folder / "site" / "vlmend_vllm-0.dist-info" / "METADATA").write_text("Name: vlmend-vllm\nVersion: 0\n")
    own = {"PYTHONPATH": str(folder / "site"), "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([PYTHON, *command], check=True, timeout=900, env=os.environ | own)
