"""Where the plug-in meets vLLM (V1 engine, V1 model runner): what an engine must be like, its blocks, its steps.

Read in vLLM 0.32.0. What is relied on: `GPUModelRunner.load_model`, `.execute_model`, `.input_batch`, `.requests`; the
interface of custom logits processors; that a decoder block is the only kind of module in a list which holds attention
with a cache, and puts out its state or (hidden, residual), whose sum is the state.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .mends import BASE, PLACES, Mend, MendError, listed
from .steering import Request, Steering

__all__ = ["ASKED", "FIRED", "attach", "blocks_of", "faults", "fired_class", "register", "requests_of", "steering_of"]

FIRED = "vlmend_vllm:Fired"
ASKED = "vlmend"
"""Name of the extra argument by which a request picks its mend (`SamplingParams.extra_args`, `vllm_xargs`)."""

_wrapped: set[type] = set()
STEERING = "vlmend_steering"
"""Attribute of a model runner that is steered."""


def register() -> None:
    """The entry point: the mends of `VLMEND_VLLM` will be at work in every model runner of this process."""
    runners: list[type] = [_of("vllm.v1.worker.gpu_model_runner").GPUModelRunner]
    if _of("vllm.platforms").current_platform.is_cpu():
        runners.append(_of("vllm.v1.worker.cpu_model_runner").CPUModelRunner)
    for runner in runners:
        if runner not in _wrapped:
            _wrapped.add(runner)
            _wrap(runner)


def _wrap(runner: Any) -> None:
    """Its own `load_model` and `execute_model`, where it has them, followed by ours."""
    if load := vars(runner).get("load_model"):

        @functools.wraps(load)
        def loaded(self: Any, *args: Any, **kwargs: Any) -> Any:
            given = load(self, *args, **kwargs)
            attach(self)
            return given

        runner.load_model = loaded
    if execute := vars(runner).get("execute_model"):

        @functools.wraps(execute)
        def executed(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            steering = steering_of(self)
            if steering is None:
                return execute(self, scheduler_output, *args, **kwargs)
            steering.forget(scheduler_output.finished_req_ids)
            told = functools.partial(requests_of, self, scheduler_output, next(iter(steering.mends)))
            with steering.step(told, scheduler_output.total_num_scheduled_tokens):
                return execute(self, scheduler_output, *args, **kwargs)

        runner.execute_model = executed


def steering_of(runner: Any) -> Steering | None:
    """What steers a model runner, or None."""
    return getattr(runner, STEERING, None)


def attach(runner: Any) -> None:
    """Hooks on the decoder blocks of a model that was loaded, where `VLMEND_VLLM` names mends.

    Raises:
        MendError: They cannot act there.
    """
    mends = listed()
    if not mends or steering_of(runner) is not None:
        return
    told = faults(runner.vllm_config, mends)
    if told:
        raise MendError(_all(told))
    depth = next(iter(mends.values())).depth
    blocks = blocks_of(runner.get_model(), depth)
    for mend in mends.values():
        _check_base(mend, blocks)
    steering = Steering(mends, runner.device)
    for layer in steering.layers:
        blocks[layer].register_forward_hook(_hook(steering, layer))
    setattr(runner, STEERING, steering)
    for processor in runner.input_batch.logitsprocs.all:
        if isinstance(processor, fired_class()):
            processor.steered.append(steering)


def faults(config: Any, mends: dict[str, Mend]) -> list[str]:
    """Everything about an engine's settings in which a mend would act otherwise than it was audited.

    Args:
        config: vLLM's `VllmConfig`.
        mends: Of the engine.
    """
    model, cache, parallel, scheduler = (
        getattr(config, f"{part}_config") for part in ("model", "cache", "parallel", "scheduler")
    )
    text = model.hf_text_config
    shape = text.num_hidden_layers, text.hidden_size, text.vocab_size
    found = [
        f"The mend {mend.name} is for {mend.model}, of {mend.depth} blocks, width {mend.width} and {mend.vocabulary} "
        f"tokens, and this model has {shape[0]}, {shape[1]} and {shape[2]}. Serve the model it was fitted on."
        for mend in mends.values()
        if (mend.depth, mend.width, mend.vocabulary) != shape
    ]
    whole = any(mend.whole for mend in mends.values())
    problems = [
        (not mends, f"{PLACES} names no mend. Set it to the folders that vlmend export vllm wrote."),
        (
            FIRED not in map(str, model.logits_processors or ()),
            f"The engine was not asked to prove its mends. Start it with --logits-processors {FIRED}.",
        ),
        (not model.enforce_eager, "Compiled models pass hooks by. Start it with --enforce-eager."),
        (
            cache.enable_prefix_caching,
            "Keys and values of one mend would be read under another, and those of a reply in the next turn. Start it "
            "with --no-enable-prefix-caching.",
        ),
        (
            whole and scheduler.enable_chunked_prefill,
            "An edit of early prompt tokens waits for the last one, so prompts must be read in one go. Start it with "
            "--no-enable-chunked-prefill.",
        ),
        (parallel.world_size != 1, "Several devices for one model were not tried. Start it on one."),
        (getattr(parallel, "enable_dbo", False), "Batches cut in two were not tried. Start it without --enable-dbo."),
        (config.speculative_config, "Guessed tokens were not tried. Start it without --speculative-config."),
        (config.lora_config, "With adapters it is another model than the mend's. Start it without --enable-lora."),
        (model.quantization, "Quantised weights are not those the mend was fitted on. Serve the others."),
        (
            config.kv_transfer_config,
            "Keys and values of other engines may be unmended. Start it without --kv-transfer-config.",
        ),
    ]
    return [*found, *(told for wrong, told in problems if wrong)]


def blocks_of(model: nn.Module, depth: int) -> nn.ModuleList:
    """The list of the decoder blocks: so many modules, each of which holds attention with a cache.

    Raises:
        MendError: There is none, or more than one.
    """
    attention = _of("vllm.model_executor.layers.attention_layer_base").AttentionLayerBase
    found = [
        part for part in model.modules()
        if isinstance(part, nn.ModuleList) and len(part) == depth
        and all(any(isinstance(inner, attention) for inner in block.modules()) for block in part)
    ]  # fmt: skip
    if len(found) != 1:
        raise MendError(
            f"{type(model).__name__} has {len(found)} lists of {depth} decoder blocks, and a mend needs one. Export "
            "hf, or use vlmend serve."
        )
    return found[0]


def requests_of(runner: Any, scheduler_output: Any, default: str) -> list[Request]:
    """The requests of a step in the order of their rows, once the runner has arranged them."""
    batch, found = runner.input_batch, list[Request]()
    for row, name in enumerate(batch.req_ids):
        state = runner.requests[name]
        extra = (state.sampling_params.extra_args or {}) if state.sampling_params else {}
        found.append(
            Request(
                name, extra.get(ASKED, default), int(batch.num_computed_tokens_cpu[row]),
                scheduler_output.num_scheduled_tokens[name], int(batch.num_prompt_tokens[row]),
                [span for feature in state.mm_features if feature.modality == "image" for span in _spans(feature)],
            )
        )  # fmt: skip
    return found


def fired_class() -> type:
    """The logits processor that lets no token be chosen unless the step before was proved; the same class each time."""
    return _fired_class()


@functools.cache
def _fired_class() -> type:
    processor: Any = _of("vllm.v1.sample.logits_processor").LogitsProcessor

    class Fired(processor):
        """Checks the engine's settings at its start, a request's choice at the door, the proof before each token."""

        @classmethod
        def validate_params(cls, sampling_params: Any) -> None:
            """
            Raises:
                ValueError: The request asks for a mend that this engine does not have; vLLM answers 400.
            """
            asked = (sampling_params.extra_args or {}).get(ASKED)
            known = [*_names(), BASE]
            if asked is not None and asked not in known:
                raise ValueError(f"{ASKED}={asked!r} is no mend of this engine: it has {', '.join(known)}")

        def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
            told = faults(vllm_config, listed())
            if not _wrapped:
                told.append("The plug-in was not loaded. Let VLLM_PLUGINS name vlmend, or nothing.")
            if told:
                raise MendError(_all(told))
            self.steered: list[Steering] = []

        def is_argmax_invariant(self) -> bool:
            """False, so that greedy decoding asks it, too."""
            return False

        def update_state(self, batch_update: Any) -> None:
            """Nothing: requests are told to `Steering`."""

        def apply(self, logits: Tensor) -> Tensor:
            """The logits as they are.

            Raises:
                MendError: No mend was seen to act in this step.
            """
            if not self.steered:
                raise MendError("tokens were about to be chosen by an engine to which no mend is attached")
            self.steered[0].take_proof()
            return logits

    return Fired


@functools.cache
def _names() -> Sequence[str]:
    return [*listed()]


def _hook(steering: Steering, layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: Any) -> None:
        match output:
            case Tensor():
                steering.after(layer, output, None)
            case (Tensor() as hidden, Tensor() as residual):
                steering.after(layer, hidden, residual)
            case _:
                raise MendError(
                    f"{type(module).__name__} puts out something else than a state or (hidden, residual). Export hf, "
                    "or use vlmend serve."
                )

    return hook


def _check_base(mend: Mend, blocks: nn.ModuleList) -> None:
    """Hold corners of the weights to those of the base that the mend was fitted on.

    Raises:
        MendError: One differs, or nothing can be compared.
    """
    for layer, (corners, block) in enumerate(zip(mend.sketch, blocks, strict=True)):
        weights = dict(block.named_parameters())
        there = {
            name: (corner, weights[name].detach()[tuple(slice(size) for size in corner.shape)].cpu())
            for name, corner in corners.items()
            if name in weights and weights[name].dim() == corner.dim()
        }
        there = {name: (corner, own) for name, (corner, own) in there.items() if own.shape == corner.shape}
        wrong = [name for name, (corner, own) in there.items() if not torch.equal(corner.to(own.dtype), own)]
        if wrong or not there:
            what = f"differs in {wrong[0]}" if wrong else "has no weight that can be compared"
            raise MendError(f"Block {layer} of this model {what}: the mend {mend.name} was fitted on {mend.model}.")


def _spans(feature: Any) -> list[tuple[int, int]]:
    """The places of the tokens of one picture: of its placeholder, those that hold an embedding of it."""
    place = feature.mm_position
    first, end = place.offset, place.offset + place.length
    if place.is_embed is None:
        return [(first, end)]
    return [(first + k, first + k + 1) for k, real in enumerate(place.is_embed.tolist()) if real]


def _of(module: str) -> Any:
    """A module of vLLM's, which is imported where it is needed: vlmend holds this file without vLLM."""
    return importlib.import_module(module)


def _all(told: Sequence[str]) -> str:
    return "vlmend cannot act in this engine:\n" + "\n".join(f"  - {one}" for one in told)
