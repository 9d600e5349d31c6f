"""The plug-in without vLLM: its rules against vlmend's, whose tokens are edited in a step, and an engine's stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlmend.core.edits import (
    AddVector,
    AffineMap,
    CosineDose,
    Gate,
    MahalanobisGate,
    ModuleEdit,
    NeighbourGate,
    ProjectOut,
)
from vlmend.core.sites import Site
from vlmend.export.vllm_plugin import engine
from vlmend.export.vllm_plugin.mends import Mend, MendError
from vlmend.export.vllm_plugin.rules import change, is_open
from vlmend.export.vllm_plugin.steering import Request, Steering
from vlmend.models.editing.states import change_of, score

WIDTH = 6
SITE = Site("language", 0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def act_of(edit: Any) -> dict[str, Any]:
    return {"kind": type(edit).__name__} | {field.name: getattr(edit, field.name) for field in fields(edit)}


@pytest.mark.parametrize(
    "edit",
    [
        AddVector(SITE, draw(WIDTH)),
        ProjectOut(SITE, torch.linalg.qr(draw(WIDTH, 2))[0].T.contiguous(), 0.7),
        CosineDose(SITE, nn.functional.normalize(draw(WIDTH), dim=0), draw(WIDTH, seed=1), 1.3),
        AffineMap(SITE, draw(2, WIDTH), draw(WIDTH, 2, seed=1), draw(WIDTH, seed=2), 0.4),
        ModuleEdit(SITE, draw(3, WIDTH), draw(3), draw(WIDTH, 3, seed=1), draw(WIDTH, seed=2), 0.4),
    ],
    ids=lambda edit: type(edit).__name__,
)
def test_a_rule_moves_states_as_vlmends_does(edit: Any) -> None:
    states = draw(50, WIDTH, seed=3)
    meant = change_of(edit)(states, torch.zeros(50, dtype=torch.long)) - states
    torch.testing.assert_close(change(act_of(edit), states, states), meant)
    assert meant.abs().max() > 0.1


@pytest.mark.parametrize(
    "gate",
    [
        Gate(SITE, draw(WIDTH), 0.1),
        MahalanobisGate(SITE, draw(2, WIDTH), draw(2), draw(2, 2), draw(2, seed=1), draw(2, 2, seed=1)),
        NeighbourGate(SITE, draw(3, WIDTH), draw(9, 3, seed=1), draw(9, 3, seed=2), 3),
    ],
    ids=lambda gate: type(gate).__name__,
)
def test_a_gate_opens_where_vlmends_does(gate: Any) -> None:
    states = draw(50, WIDTH, seed=4)
    meant = (score(gate, states) > 0).tolist()
    assert [is_open(act_of(gate), state) for state in states] == meant
    assert set(meant) == {True, False}


def mend(*edits: dict[str, Any], name: str = "m", depth: int = 1, width: int = 1) -> Mend:
    common = {"kind": "AddVector", "layer": 0, "tokens": "last", "when": "always", "gate": None}
    sketch = [{"weight": torch.ones(width)}] * depth
    return Mend(name, "tiny", depth, width, 9, [common | edit for edit in edits], sketch, [])


def add(size: float = 1.0, **given: Any) -> dict[str, Any]:
    return {"vector": torch.tensor([size]), **given}


def run(steering: Steering, request: Request, outputs: Sequence[Tensor]) -> None:
    """A step of one token in which the block puts these out, one after the other."""
    with steering.step(lambda: [request], 1):
        for hidden in outputs:
            steering.after(0, hidden, None)


def moved(steering: Steering, *requests: Request) -> list[float]:
    """What one step adds to states of 0, a number a token."""
    total = sum(request.count for request in requests)
    hidden = torch.zeros(total, 1)
    with steering.step(lambda: requests, total):
        steering.after(0, hidden, torch.zeros(total, 1))
    return hidden[:, 0].tolist()


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        ("last", [[0, 0], [1, 1]]), ("last_prompt", [[0, 0], [1, 0]]), ("reply", [[0, 0], [0, 1]]),
        ("prompt", [[1, 1], [1, 0]]), ("all", [[1, 1], [1, 1]]), ("image", [[0, 1], [1, 0]]),
    ],
)  # fmt: skip
def test_a_scope_is_kept_where_a_prompt_of_three_tokens_is_read_in_two_parts(
    tokens: str, parts: list[list[float]]
) -> None:
    steering = Steering({"m": mend(add(tokens=tokens))})
    two = (Request("a", "m", 0, 2, 3, [(1, 3)]), Request("a", "m", 2, 2, 3, [(1, 3)]))  # then one token of the reply
    assert [moved(steering, one) for one in two] == parts
    whole = moved(steering, Request("b", "m", 0, 4, 3, [(1, 3)]))  # thrown out, and read again with its reply
    assert whole == parts[0] + parts[1]
    assert steering.fired["m", 0] == 2 * sum(parts[0] + parts[1])


def test_each_row_of_a_step_gets_its_own_mend_and_the_base_none() -> None:
    steering = Steering({"m": mend(add(1.0)), "n": mend(add(10.0, tokens="all"), name="n")})
    rows = (
        Request("a", "m", 0, 2, 2),
        Request("b", "base", 0, 2, 2),
        Request("c", "n", 5, 1, 3),
        Request("d", "m", 4, 1, 3),
    )
    assert moved(steering, *rows) == [0, 1, 0, 0, 10, 1]
    with pytest.raises(MendError, match="no mend 'nobody'"):
        moved(steering, Request("e", "nobody", 0, 1, 1))


def test_an_edit_for_requests_with_an_image_leaves_the_others() -> None:
    steering = Steering({"m": mend(add(when="with_image"))})
    assert moved(steering, Request("a", "m", 0, 1, 1), Request("b", "m", 0, 2, 2, [(0, 1)])) == [0, 0, 1]


def test_a_projection_is_of_hidden_plus_residual_as_vllm_hands_them_over() -> None:
    edit = {"kind": "ProjectOut", "directions": torch.tensor([[1.0, 0.0]]), "strength": 1.0}
    steering = Steering({"m": mend(edit, width=2)})
    hidden, residual = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]])  # the state is (3, 1)
    with steering.step(lambda: [Request("a", "m", 0, 1, 1)], 1):
        steering.after(0, hidden, residual)
    assert (hidden + residual).tolist() == [[0.0, 1.0]]
    assert residual.tolist() == [[2.0, 1.0]]


def gated(tokens: str) -> Steering:
    gate = {"kind": "Gate", "layer": 0, "weight": torch.tensor([1.0]), "bias": -5.0}
    return Steering({"m": mend(add(tokens=tokens, gate=gate))})


def test_a_gate_is_read_at_the_last_prompt_token_and_kept_for_the_reply() -> None:
    steering = gated("last")
    read = [Request("open", "m", 0, 2, 2), Request("closed", "m", 0, 2, 2)]
    hidden = torch.tensor([[9.0], [6.0], [9.0], [4.0]])
    with steering.step(lambda: read, 4):
        steering.after(0, hidden, None)
    assert hidden[:, 0].tolist() == [9, 7, 9, 4]
    assert moved(steering, Request("open", "m", 2, 1, 2), Request("closed", "m", 2, 1, 2)) == [1, 0]
    steering.forget(["open"])
    with pytest.raises(MendError, match="gate that has not been read"):
        moved(steering, Request("open", "m", 3, 1, 2))


def test_a_gate_sees_the_state_before_other_edits_of_its_layer() -> None:
    gate = {"kind": "Gate", "layer": 0, "weight": torch.tensor([1.0]), "bias": -5.0}
    steering = Steering({"m": mend(add(), add(gate=gate))})
    hidden = torch.tensor([[4.5]])  # 5.5 behind the first edit
    with steering.step(lambda: [Request("a", "m", 0, 1, 1)], 1):
        steering.after(0, hidden, None)
    assert hidden.tolist() == [[5.5]]


def test_a_gate_before_early_tokens_asks_for_whole_prompts() -> None:
    steering = gated("all")
    assert steering.mends["m"].whole
    with pytest.raises(MendError, match="--no-enable-chunked-prefill"):
        moved(steering, Request("a", "m", 0, 2, 3))


@pytest.mark.parametrize("calls", [0, 2])
def test_a_step_in_which_a_block_did_not_hand_over_once_is_an_error_and_gives_no_proof(calls: int) -> None:
    steering = Steering({"m": mend(add())})
    request = Request("a", "m", 0, 1, 1)
    with pytest.raises(MendError, match=f"output {calls} times"):
        run(steering, request, [torch.zeros(1, 1)] * calls)
    with pytest.raises(MendError, match="no mend was seen to act"):
        steering.take_proof()
    moved(steering, request)
    steering.take_proof()  # one for one step
    with pytest.raises(MendError):
        steering.take_proof()


def test_a_step_of_the_base_alone_needs_no_block_and_a_dummy_run_edits_nothing() -> None:
    steering = Steering({"m": mend(add())})
    with steering.step(lambda: [Request("a", "base", 0, 1, 1)], 1):
        pass
    steering.take_proof()
    hidden = torch.zeros(3, 1)
    steering.after(0, hidden, None)  # the engine tries its memory
    assert not hidden.any()
    with pytest.raises(MendError, match="have 2 tokens, and the step 1"):
        run(steering, Request("a", "m", 0, 2, 2), [torch.zeros(1, 1)])


# --- vLLM's place taken by a stand-in of the same names


class Attention(nn.Module):
    """What marks a decoder block."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.weight = Attention(), nn.Parameter(torch.ones(1))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return hidden.clone(), torch.zeros_like(hidden)


class Runner:
    """A model runner: loads a model, then runs steps."""

    def __init__(self, config: Any, processors: Sequence[Any]) -> None:
        self.vllm_config, self.device = config, torch.device("cpu")
        self.input_batch = SimpleNamespace(
            logitsprocs=SimpleNamespace(all=processors), req_ids=["a", "b"], num_computed_tokens_cpu=[0, 4],
            num_prompt_tokens=[2, 3],
        )  # fmt: skip
        settings = SimpleNamespace(extra_args=None), SimpleNamespace(extra_args={"vlmend": "base"})
        self.requests = {
            name: SimpleNamespace(sampling_params=one, mm_features=[]) for name, one in zip("ab", settings, strict=True)
        }
        self.skips = False

    def load_model(self) -> None:
        self.model = nn.Sequential(nn.ModuleList([Block()]))

    def get_model(self) -> nn.Module:
        return self.model

    def execute_model(self, scheduler_output: Any) -> Tensor:
        block: Any = self.model[0][0]  # type: ignore[index]
        call = block.forward if self.skips else block
        return call(torch.zeros(scheduler_output.total_num_scheduled_tokens, 1))[0]


STEP = SimpleNamespace(finished_req_ids=set[str](), total_num_scheduled_tokens=3, num_scheduled_tokens={"a": 2, "b": 1})


def config(**changed: Any) -> Any:
    """Settings of an engine in which a mend acts as it should."""
    text = SimpleNamespace(num_hidden_layers=1, hidden_size=1, vocab_size=9)
    parts: dict[str, dict[str, Any]] = {
        "model_config": {
            "hf_text_config": text, "enforce_eager": True, "quantization": None, "logits_processors": [engine.FIRED],
        },
        "cache_config": {"enable_prefix_caching": False}, "scheduler_config": {"enable_chunked_prefill": True},
        "parallel_config": {"world_size": 1, "enable_dbo": False},
    }  # fmt: skip
    for name, value in changed.items():
        home = next((part for part in parts.values() if name in part), None)
        if home is not None:
            home[name] = value
    whole = {name: changed.get(name) for name in ("speculative_config", "lora_config", "kv_transfer_config")}
    return SimpleNamespace(**{name: SimpleNamespace(**part) for name, part in parts.items()}, **whole)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("enforce_eager", False, "--enforce-eager"), ("enable_prefix_caching", True, "--no-enable-prefix-caching"),
        ("logits_processors", None, "--logits-processors vlmend_vllm:Fired"), ("world_size", 2, "on one"),
        ("enable_dbo", True, "--enable-dbo"), ("speculative_config", object(), "--speculative-config"),
        ("lora_config", object(), "--enable-lora"), ("quantization", "fp8", "Quantised"),
        ("kv_transfer_config", object(), "--kv-transfer-config"),
        ("hf_text_config", SimpleNamespace(num_hidden_layers=2, hidden_size=1, vocab_size=9), "has 2, 1 and 9"),
    ],
)  # fmt: skip
def test_each_setting_under_which_a_mend_would_be_another_is_told(name: str, value: Any, said: str) -> None:
    mends = {"m": mend(add())}
    assert engine.faults(config(), mends) == []
    (told,) = engine.faults(config(**{name: value}), mends)
    assert said in told


def test_an_engine_without_mends_and_one_that_cuts_prompts_under_a_gate_are_told() -> None:
    assert "names no mend" in engine.faults(config(), {})[0]
    assert "--no-enable-chunked-prefill" in engine.faults(config(), gated("all").mends)[0]
    assert engine.faults(config(enable_chunked_prefill=False), gated("all").mends) == []


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mend]:
    """vLLM's modules as far as the plug-in imports them; gives the mends of `VLMEND_VLLM`."""
    runner: Any = type("GPUModelRunner", (Runner,), dict(vars(Runner)))
    cpu = type("CPUModelRunner", (runner,), {})
    modules = {
        "vllm.v1.worker.gpu_model_runner": SimpleNamespace(GPUModelRunner=runner),
        "vllm.v1.worker.cpu_model_runner": SimpleNamespace(CPUModelRunner=cpu),
        "vllm.platforms": SimpleNamespace(current_platform=SimpleNamespace(is_cpu=lambda: True)),
        "vllm.model_executor.layers.attention_layer_base": SimpleNamespace(AttentionLayerBase=Attention),
        "vllm.v1.sample.logits_processor": SimpleNamespace(LogitsProcessor=object),
    }
    mends = {"m": mend(add(5.0))}
    monkeypatch.setattr(engine, "_of", lambda name: modules[name])
    monkeypatch.setattr(engine, "listed", lambda: mends)
    monkeypatch.setattr(engine, "_wrapped", set())
    engine._fired_class.cache_clear()
    engine._names.cache_clear()
    return mends


def started(settings: Any) -> tuple[Any, Any]:
    """A runner with its model loaded, and the logits processor that vLLM made."""
    engine.register()
    engine.register()  # vLLM may load a plug-in twice
    fired: Any = engine.fired_class()(settings, torch.device("cpu"), False)
    runner: Any = engine._of("vllm.v1.worker.cpu_model_runner").CPUModelRunner(settings, [fired])
    runner.load_model()
    return runner, fired


def test_an_engine_edits_the_rows_that_asked_for_it_and_proves_it_before_a_token_is_chosen(vllm: object) -> None:
    runner, fired = started(config())
    logits = torch.zeros(1)
    with pytest.raises(MendError):
        fired.apply(logits)
    assert runner.execute_model(STEP)[:, 0].tolist() == [0, 5, 0]  # a at its last prompt token, b asked for the base
    assert fired.apply(logits) is logits
    runner.skips = True  # calls `forward` itself, as some families do
    with pytest.raises(MendError, match="0 times"):
        runner.execute_model(STEP)
    with pytest.raises(MendError):
        fired.apply(logits)


def test_an_engine_that_did_not_ask_for_proof_or_whose_plug_in_was_left_out_does_not_start(vllm: object) -> None:
    fired = engine.fired_class()
    with pytest.raises(MendError, match="VLLM_PLUGINS"):
        fired(config(), torch.device("cpu"), False)
    engine.register()
    bare: Any = engine._of("vllm.v1.worker.gpu_model_runner").GPUModelRunner(config(logits_processors=None), [])
    with pytest.raises(MendError, match="not asked to prove"):
        bare.load_model()


def test_an_engine_without_mends_is_left_alone(vllm: dict[str, Mend]) -> None:
    vllm.clear()
    engine.register()
    bare: Any = engine._of("vllm.v1.worker.gpu_model_runner").GPUModelRunner(config(logits_processors=None), [])
    bare.load_model()
    assert not bare.execute_model(STEP).any()
    with pytest.raises(MendError, match="names no mend"):
        engine.fired_class()(config(), torch.device("cpu"), False)


def test_a_request_for_a_mend_that_is_not_there_is_refused_at_the_door(vllm: object) -> None:
    fired: Any = engine.fired_class()
    for name in (None, "m", "base"):
        fired.validate_params(SimpleNamespace(extra_args=None if name is None else {"vlmend": name}))
    with pytest.raises(ValueError, match="it has m, base"):
        fired.validate_params(SimpleNamespace(extra_args={"vlmend": "n"}))


def test_another_model_than_the_base_and_two_lists_of_blocks_are_refused(vllm: dict[str, Mend]) -> None:
    vllm["m"] = Mend("m", "tiny", 1, 1, 9, vllm["m"].edits, [{"weight": torch.tensor([2.0])}], [])
    with pytest.raises(MendError, match="Block 0 of this model differs in weight"):
        started(config())
    lists = nn.Sequential(nn.ModuleList([Block()]), nn.ModuleList([Block()]), nn.ModuleList([nn.Linear(1, 1)]))
    with pytest.raises(MendError, match="2 lists of 1 decoder blocks"):
        engine.blocks_of(lists, 1)


def test_the_places_of_a_picture_are_those_that_hold_its_embeddings() -> None:
    place = SimpleNamespace(offset=3, length=4, is_embed=None)
    assert engine._spans(SimpleNamespace(mm_position=place)) == [(3, 7)]
    place.is_embed = torch.tensor([True, False, True, False])
    assert engine._spans(SimpleNamespace(mm_position=place)) == [(3, 4), (5, 6)]
    assert Path(engine.__file__).with_name("__main__.py").exists()
