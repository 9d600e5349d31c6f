"""Other libraries that add vectors to a model's layers, in an environment of their own.

The environment is a venv in the cache folder that holds the peers alone and reads everything else
(torch, transformers, vlmend) from the environment that made it. Each peer is used through its public
API on the very same loaded model, so that all of them read the same pictures and words.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
from torch import Tensor, nn
from transformers import GenerationConfig

from vlmend.models.vlm import VLM
from vlmend.phantom.cache import cache_folder

__all__ = ["Peer", "bare", "peer_python", "peers"]

PACKAGES = ("repeng==0.4.0", "steering-vectors==0.12.2", "nnsight==0.8.1", "greenlet==3.5.6", "websocket-client==1.9.2")
"""The peers, and what nnsight needs beyond vlmend's own dependencies."""

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """One way to add the vectors.

    Attributes:
        name: Library and version.
        does: Where it adds, and how it is used here.
        prefill: Next-token logits of some inputs.
        generate: Tokens after some inputs, under a generation config.
        around: Sets it up and takes it away again; not timed.
    """

    name: str
    does: str
    prefill: Callable[[Inputs], Tensor]
    generate: Callable[[Inputs, GenerationConfig], Tensor]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


def peer_python(packages: Sequence[str] = PACKAGES, name: str = "bench-venv") -> Path:
    """The interpreter of an environment with these packages and all of ours, made on first use."""
    folder = cache_folder() / name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(packages):
        venv.create(folder, clear=True, with_pip=True)
        run = [python, "-m", "pip", "install", "--quiet", "--no-deps", *packages]
        subprocess.run([str(part) for part in run], check=True, stdout=sys.stderr)
        purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        mine = sysconfig.get_path("purelib")
        (purelib / "zz_vlmend.pth").write_text(f"import site; site.addsitedir({mine!r})\n")
        stamp.write_text("\n".join(packages))
    return python


def bare(vlm: VLM) -> Peer:
    """The model as transformers runs it, without any library between."""
    return Peer("transformers alone", "adds nothing", _prefill(vlm), _generate(vlm))


def peers(vlm: VLM, vectors: Mapping[int, Tensor]) -> list[Peer | tuple[str, str]]:
    """Every peer, or its name and why it cannot run here."""
    found: list[Peer | tuple[str, str]] = []
    for name, make in (("repeng", _repeng), ("steering-vectors", _steering_vectors), ("nnsight", _nnsight)):
        try:
            found.append(make(vlm, vectors))
        except Exception as problem:  # whatever it is, its row says so
            found.append((name, f"cannot run here: {type(problem).__name__}: {problem}"))
    return found


def _prefill(vlm: VLM) -> Callable[[Inputs], Tensor]:
    return lambda inputs: vlm.reader.forward(inputs)


def _generate(vlm: VLM) -> Callable[[Inputs, GenerationConfig], Tensor]:
    return lambda inputs, config: vlm.model.generate(**inputs, generation_config=config)


def _repeng(vlm: VLM, vectors: Mapping[int, Tensor]) -> Peer:
    """`ControlModel` around the language model; adds at every token, it knows no other way."""
    numpy.float_ = numpy.float64  # the name that repeng 0.4.0 uses went with numpy 2
    control = importlib.import_module("repeng.control")
    holder = nn.Module()
    holder.model = vlm.model.model.language_model

    @contextmanager
    def wrapped() -> Generator[None]:
        model = control.ControlModel(holder, list(vectors))
        model.set_raw_control(dict(vectors))
        try:
            yield
        finally:
            model.unwrap()

    def prefill(inputs: Inputs) -> Tensor:
        # it finds padding in the positions, and needs a row of them for each request
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
        return vlm.reader.forward(inputs | {"position_ids": positions})

    return Peer(f"repeng {version('repeng')}", "every token", prefill, _generate(vlm), wrapped)


def _steering_vectors(vlm: VLM, vectors: Mapping[int, Tensor]) -> Peer:
    """`SteeringVector.apply` on the last token of every forward call."""
    library = importlib.import_module("steering_vectors")
    vector = library.SteeringVector(layer_activations=dict(vectors), layer_type="decoder_block")
    path = f"{vlm.anatomy.blocks_path}.{{num}}"

    def applied() -> AbstractContextManager[object]:
        return vector.apply(
            vlm.model, layer_config={"decoder_block": path}, token_indices=slice(-1, None), min_token_index=None
        )

    name = f"steering-vectors {version('steering-vectors')}"
    return Peer(name, "last token, every step", _prefill(vlm), _generate(vlm), applied)


def _nnsight(vlm: VLM, vectors: Mapping[int, Tensor]) -> Peer:
    """A trace around each call that adds to the last token of every step."""
    library = importlib.import_module("nnsight")
    wrapped = library.NNsight(vlm.model)
    layers = wrapped.get(vlm.anatomy.blocks_path)
    chosen = [(layers[layer], vector) for layer, vector in vectors.items()]

    def prefill(inputs: Inputs) -> Tensor:
        with wrapped.trace(**inputs, use_cache=False, logits_to_keep=1):
            for layer, vector in chosen:
                layer.output[:, -1] += vector
            logits = wrapped.output.logits[:, -1].save()
        return logits  # noqa: RET504  the block above is run elsewhere, a return in it would be lost

    def generate(inputs: Inputs, config: GenerationConfig) -> Tensor:
        steps = config.max_new_tokens
        with wrapped.trace(fn=vlm.model.generate, **inputs, generation_config=config) as tracer:
            for _ in tracer.iter[:steps]:
                for layer, vector in chosen:
                    layer.output[:, -1] += vector
            tokens = tracer.result.save()
        return tokens  # noqa: RET504

    return Peer(f"nnsight {version('nnsight')}", "last token, every step", prefill, generate)
