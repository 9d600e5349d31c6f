"""Loading as a user does it: options, sizes, and one clear message for each thing that is wrong."""

from __future__ import annotations

import importlib.util
import json
import runpy
import shutil
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from huggingface_hub.utils import TensorInfo
from safetensors.torch import load_file, save_file

from vlmend.core.conversation import Conversation
from vlmend.core.images import noise_image
from vlmend.errors import BadParameter, MissingExtra, ModelProblem
from vlmend.models.loading import options as loading
from vlmend.models.loading.options import (
    LoadOptions,
    check_fits,
    device_of,
    header_tensors,
    needed_bytes,
)
from vlmend.models.loading.vlm import load
from vlmend.models.memory import free_bytes
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_tokenizer, tiny_vlm

CPU = LoadOptions("cpu")
SEEN = [Conversation.ask("what", noise_image(16, 1))]
LAYER = "layers.0.mlp.down_proj.weight"

OWN_CODE = """
from transformers import LlavaConfig, LlavaForConditionalGeneration
class OwnConfig(LlavaConfig):
    model_type = "own"
class OwnModel(LlavaForConditionalGeneration):
    config_class = OwnConfig
"""


@pytest.fixture(scope="module")
def saved(tiny: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny.model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own to break."""
    return shutil.copytree(saved, tmp_path / "model")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def stored(weights: dict[str, torch.Tensor], end: str) -> str:
    """The name in the file: files keep the names of older versions of transformers."""
    (name,) = [name for name in weights if name.endswith(end)]
    return name


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


# Options


def test_all_wrong_options_are_told_at_once() -> None:
    unchecked = runpy.run_path(loading.__file__)["LoadOptions"]  # the tests' own type checks would come first
    with pytest.raises(BadParameter) as problem:
        unchecked("cpu", "fp8", "auto", attention="flash_attention_2")
    told = problem.value.message
    assert "dtype 'fp8' is none of 'auto', 'float32'" in told
    assert "exclude each other" in told
    assert "flash_attention_2 needs a GPU" in told


@pytest.mark.parametrize(
    ("options", "package"),
    [(LoadOptions(quantize="4bit"), "bitsandbytes"), (LoadOptions(quantize="8bit"), "bitsandbytes"),
     (LoadOptions(quantize="int8-torchao"), "torchao"), (LoadOptions(attention="flash_attention_2"), "flash-attn")],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_command(options: LoadOptions, package: str, saved: Path) -> None:
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingExtra, match=package) as problem:
        load(saved, options=options)
    assert problem.value.hint == f"Run: pip install {package}"


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadParameter, match="no device 'gpu0'"):
        device_of(LoadOptions("gpu0"))
    if not torch.cuda.is_available():
        with pytest.raises(ModelProblem, match="not on this machine"):
            device_of(LoadOptions("cuda:0"))


def test_dtype_and_attention_are_as_asked(saved: Path, tiny: VLM) -> None:
    half = load(saved, options=LoadOptions("cpu", "bfloat16"))
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    eager = load(saved, options=LoadOptions("cpu", attention="eager"))
    assert eager.model.config._attn_implementation == "eager"
    assert tiny.model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(eager.logits(SEEN), tiny.logits(SEEN), atol=1e-5, rtol=0)


def test_a_device_map_gives_the_same_model(saved: Path, tiny: VLM) -> None:
    pytest.importorskip("accelerate")
    mapped = load(saved, options=LoadOptions(device_map="auto"))
    assert mapped.model_digest == tiny.model_digest
    torch.testing.assert_close(mapped.logits(SEEN), tiny.logits(SEEN), atol=1e-4, rtol=0)


def test_a_folder_ignores_the_revision(saved: Path, tiny: VLM) -> None:
    assert load(saved, options=LoadOptions("cpu", revision="no-such-branch")).model_digest == tiny.model_digest


def test_pickles_are_read_only_when_allowed(folder: Path, tiny: VLM) -> None:
    only_pickle(folder)
    with pytest.raises(ModelProblem, match=r"no safetensors, only pytorch_model\.bin") as problem:
        load(folder, options=CPU)
    assert "--allow-pickle" in problem.value.hint
    assert "can hold code" in problem.value.hint
    assert load(folder, options=LoadOptions("cpu", allow_pickle=True)).model_digest == tiny.model_digest


def test_code_of_a_checkpoint_runs_only_when_trusted(
    folder: Path, tiny: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "own.py").write_text(OWN_CODE)
    change_weights(folder, lambda w: w.update({"lm_head.weight": w.pop(stored(w, "lm_head.weight"))}))  # as it saves it
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change_config(folder, model_type="own", auto_map=auto_map)
    with pytest.raises(ModelProblem, match="its own Python code") as problem:
        load(folder, options=CPU)
    assert "--trust-remote-code" in problem.value.hint
    assert "runs with your rights" in problem.value.hint
    loaded = load(folder, options=LoadOptions("cpu", trust_remote_code=True))
    assert type(loaded.model).__name__ == "OwnModel"
    assert loaded.model_digest == tiny.model_digest


# Memory


def test_the_headers_tell_the_size_of_the_weights(saved: Path, tiny: VLM, tmp_path: Path) -> None:
    weights = sum(p.numel() for p in tiny.model.parameters())
    tensors = header_tensors(saved)
    assert tensors is not None
    assert needed_bytes(tensors, LoadOptions(), "cpu", 99) == 4 * weights
    assert needed_bytes(tensors, LoadOptions(dtype="bfloat16"), "cpu", 99) == 2 * weights
    tiny.model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    shards = header_tensors(tmp_path)
    assert shards is not None
    assert needed_bytes(shards, LoadOptions(), "cpu", 99) == 4 * weights


def test_quantised_sizes_leave_embeddings_and_norms_as_they_are() -> None:
    # A 10 x 8 embedding (10 tokens), an 8 x 8 matrix and a norm of 8, stored in bfloat16.
    tensors = [TensorInfo("BF16", [10, 8], (0, 160)), TensorInfo("BF16", [8, 8], (160, 288)),
               TensorInfo("BF16", [8], (288, 304))]  # fmt: skip

    def need(device: str, **options: Any) -> int:
        return needed_bytes(tensors, LoadOptions(**options), device, 10)

    assert need("cuda") == 304
    assert need("cpu") == 4 * (80 + 64 + 8)
    assert need("cuda", quantize="8bit", dtype="float16") == 2 * 80 + 64 + 2 * 8
    assert need("cuda", quantize="4bit", dtype="float16") == 2 * 80 + 36 + 2 * 8  # 64 half bytes and one float32


def test_a_model_that_does_not_fit_is_refused_with_the_ways_out() -> None:
    tensors = [TensorInfo("BF16", [1000, 1000], (0, 2_000_000))]
    check_fits("m", tensors, LoadOptions(), "cpu", 7, 4_000_000)
    check_fits("m", tensors, LoadOptions(), "cpu", 7, None)
    with pytest.raises(ModelProblem) as problem:
        check_fits("m", tensors, LoadOptions(), "cpu", 7, 3_999_999)
    assert problem.value.message == "m does not fit: its weights need 4.0 MB on cpu, and 4.0 MB are free."
    assert "--dtype bfloat16 needs 2.0 MB; --quantize 8bit needs 1.0 MB; --quantize 4bit needs 562.5 kB" in (
        problem.value.hint
    )


def test_load_refuses_it_before_a_weight_is_read(folder: Path) -> None:
    """A file of 8 TB, empty but for its header: nothing could read it."""
    size = 8 * 10**12
    header = json.dumps({LAYER: {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    with pytest.raises(ModelProblem, match=r"does not fit: its weights need 8\.0 TB on cpu"):
        load(folder, options=CPU)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    free = free_bytes("cpu", tmp_path)
    assert free is not None
    assert free > 5_000_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    assert (free_bytes("cpu", tmp_path) or 0) > 5_000_000
    (tmp_path / "memory.max").write_text("5000000\n")
    assert free_bytes("cpu", tmp_path) == 1_000_000
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 250000\n")
    assert free_bytes("cpu", tmp_path) == 1_250_000


# What is wrong with a checkpoint


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def make_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 123\n")


def of_other_shape(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({stored(weights, LAYER): torch.zeros(3)}))


def without_layer(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop(stored(weights, LAYER)))


def with_nan(folder: Path) -> None:
    change_weights(folder, lambda weights: weights[stored(weights, LAYER)].view(-1)[77:78].fill_(float("nan")))


def without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def with_template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "cut short": (truncate, "model.safetensors is no whole safetensors file", "fetch it again"),
    "a Git LFS pointer": (make_pointer, "model.safetensors is no whole safetensors file", "git lfs pull"),
    "no weights": (without("model.safetensors"), "it has no weights", "Fetch its model.safetensors"),
    "no config": (without("config.json"), "no config.json that names its model type", "a folder that holds one"),
    "config no JSON": (lambda f: (f / "config.json").write_text("{"), "is not a valid JSON file", "Fetch that file"),  # type: ignore[dict-item]
    "unknown type": (lambda f: change_config(f, model_type="own"), "model type `own`", "pip install -U transformers"),
    "other shapes": (of_other_shape, "other shapes than its config.json says", "from one place"),
    "a layer missing": (
        without_layer,
        f"lacks 1 of its weights, first model.language_model.{LAYER}; they would be random",
        "again",
    ),
    "one NaN": (
        with_nan,
        f"NaN or infinite numbers in 1 of its weights, first in model.language_model.{LAYER}",
        "--dtype",
    ),
    "no tokenizer": (without("tokenizer.json"), "the folder has no tokenizer", "Copy the tokenizer"),
    "no image processor": (without("processor_config.json"), "the folder has no image processor", "Copy the"),
    "no template": (without("chat_template.jinja"), "no chat template", "chat_template.jinja"),
    "template that joins texts": (
        with_template("{% for m in messages %}{{ m.content + 'x' }}{% endfor %}"),
        "cannot write a request with a picture (it fails with TypeError: can only concatenate list",
        "a list of parts",
    ),
    "template that writes parts as they are": (
        with_template("{% for m in messages %}{{ m.content }}{% endfor %}"),
        "takes a message for plain text",
        "a list",
    ),
    "template without words": (with_template("{{ messages[0].role }}"), "takes a message for plain text", "a list"),
    "template that is cut off": (with_template("{% for m in"), "it fails with TemplateSyntaxError", "a list of parts"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_checkpoint_is_one_message_with_a_way_out(what: str, folder: Path) -> None:
    breaks, said, way_out = BROKEN[what]
    breaks(folder)
    with pytest.raises(ModelProblem) as problem:
        load(folder, options=CPU)
    assert said in problem.value.message
    assert str(folder) in problem.value.message
    assert way_out in problem.value.hint


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json", "several in tokenizer_config.json"])
def test_a_template_is_read_wherever_it_stands(place: str, folder: Path, tiny: VLM) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    if place == "chat_template.json":
        (folder / place).write_text(json.dumps({"chat_template": template}))
    else:
        named = [{"name": "default", "template": template}, {"name": "tool_use", "template": "other"}]
        file = folder / "tokenizer_config.json"
        held = named if place.startswith("several") else template
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": held}))
    assert load(folder, options=CPU).reader.rendered(SEEN) == tiny.reader.rendered(SEEN)


def test_a_head_of_the_tower_that_chat_never_uses_may_lack(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop(stored(weights, "post_layernorm.weight")))
    assert load(folder, options=CPU).layers == 4


SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
EYE = SMALL | {"image_size": 16, "patch_size": 8}
WORDS = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 1}


def other_models() -> dict[str, tuple[Any, str, str]]:
    t5 = transformers.T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    eye = transformers.ViTConfig(**EYE)
    return {
        "Llama": (transformers.LlamaConfig(**SMALL, **WORDS), "reads text only", "also reads images"),
        "CLIP": (
            transformers.CLIPConfig(text_config=SMALL | WORDS, vision_config=EYE), "dual encoder", "load_dual"
        ),
        "SigLIP": (
            transformers.SiglipConfig(text_config=SMALL | WORDS, vision_config=EYE), "dual encoder", "load_dual"
        ),
        "T5": (t5, "encoder-decoder", "decoder-only"),
        "BLIP-2 with T5": (transformers.Blip2Config(text_config=t5.to_dict()), "encoder-decoder", "decoder-only"),
        "ViT": (eye, "does not write text about images", "families"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["Llama", "CLIP", "SigLIP", "T5", "BLIP-2 with T5", "ViT"])
def test_another_kind_of_model_is_called_by_its_name(kind: str, tmp_path: Path) -> None:
    config, said, way_out = other_models()[kind]
    config.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelProblem) as problem:
        load(tmp_path, options=CPU)
    assert said in problem.value.message
    assert f"model type {config.model_type}" in problem.value.message
    assert way_out in problem.value.hint


@pytest.mark.parametrize(
    ("name", "said"),
    [("./no-such-folder", "no such folder"), ("nobody/nothing", "not in the cache, and the hub cannot be reached")],
)
def test_a_model_that_is_nowhere_is_not_found(name: str, said: str) -> None:
    with pytest.raises(ModelProblem, match=said) as problem:
        load(name, options=CPU)
    assert "hub name" in problem.value.hint


# The hub, spoken to by the real client


HUB_SAYS = {"gated": (403, "GatedRepo"), "private": (401, "RepoNotFound"), "old": (404, "RevisionNotFound")}


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hugging Face Hub does for models that it does not give out."""

    def do_GET(self) -> None:
        status, code = next(answer for owner, answer in HUB_SAYS.items() if f"/{owner}/" in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("name", "said", "way_out"),
    [("gated/model", "it is gated", "Accept its terms at https://huggingface.co/gated/model"),
     ("private/model", "no such model, or it is private", "hf auth login"),
     ("old/model", "no revision 'v9'", "--revision")],
)  # fmt: skip
def test_what_the_hub_refuses_is_told(name: str, said: str, way_out: str) -> None:
    with pytest.raises(ModelProblem, match=said) as problem:
        load(name, options=LoadOptions("cpu", revision="v9"))
    assert way_out in problem.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 2}, "holds 18 weights of decoder blocks that its config.json does not have"),
        ({"num_hidden_layers": "x"}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "modulo by zero"),
    ],
)
def test_a_config_that_does_not_go_with_its_weights_is_one_problem(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    tiny = tiny_vlm()
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"text_config": config["text_config"] | change}))
    with pytest.raises(ModelProblem, match=said):
        load(tmp_path)
