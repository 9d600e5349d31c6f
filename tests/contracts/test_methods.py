"""The contract that every registered method keeps, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from vlmend import registry
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import ActivationEdit, AddVector, ContrastShift
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image, noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadParameter, MendMismatch
from vlmend.models.vlm import VLM
from vlmend.testing import full_digest, hook_count, tiny_vlm

PROMPTS = ("how are you", "tell me a story about the sea", "why?", "name a fruit and a bird", "go on then")
DATA = Dataset(
    "tiny",
    tuple(Example(str(k), prompt, "harmful" if k % 2 else "benign") for k, prompt in enumerate(PROMPTS)),
)
BATCH = [
    Conversation.ask("hello"),
    Conversation.ask("what is it", noise_image(16, 1)),
    Conversation.ask("a longer question about the thing in the picture", noise_image(16, 2)),
    Conversation.ask("and now a text that is longer than the others, without any picture"),
]
GREEDY = Sampling(max_new_tokens=10)

CHANGE_TEXT = {"vlguard"}
"""Methods that change weights, and with them text-only requests."""
AROUND_REPLIES = {"ecso", "eta", "hidden_detect"}
"""Methods that act before or after decoding: next-token logits do not show them, extra reads do."""

OPEN: dict[str, dict[str, object]] = {
    "astra": {"layers": "0"},
    "cmrm_gated": {"caution": 1000.0},
    "infer_aligner": {"caution": 1000.0},
    "vlguard": {"steps": 3, "batch": 2, "rate": 1e-2},
}
"""Settings under which a gate is open, so that the contract sees the mend at work, or a training is short."""

GENERATIVE = [name for name in registry.method_names() if registry.make_method(name, {}).works_on == "generative"]
"""Methods of models that answer; those of dual encoders are in `test_dual_methods`."""

any_method = pytest.mark.parametrize("name", registry.method_names())
every_method = pytest.mark.parametrize("name", GENERATIVE)


def fit(name: str, target: VLM, seed: int = 0, **parameters: object) -> Mend:
    return registry.make_method(name, OPEN.get(name, {}) | parameters).fit(target, DATA, seed=seed)


@every_method
def test_same_seed_same_mend(name: str, tiny: VLM) -> None:
    assert fit(name, tiny).digest == fit(name, tiny).digest


@any_method
def test_parameters_survive_json(name: str) -> None:
    method = registry.make_method(name, {})
    again = registry.make_method(name, json.loads(json.dumps(method.parameters)))
    assert again == method


@any_method
def test_an_unknown_parameter_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(BadParameter, match="It has:"):
        registry.make_method(name, {"no_such_thing": 1})


@every_method
def test_saved_and_loaded_mend_gives_the_same_logits(name: str, tiny: VLM, tmp_path: Path) -> None:
    mend = fit(name, tiny)
    mend.save(tmp_path / "mend")
    loaded = Mend.load(tmp_path / "mend")
    assert loaded.digest == mend.digest
    assert loaded.card == mend.card
    assert torch.equal(tiny.with_mend(loaded).logits(BATCH), tiny.with_mend(mend).logits(BATCH))


@every_method
def test_scale_zero_is_the_base_bit_for_bit(name: str, tiny: VLM) -> None:
    view = tiny.with_mend(fit(name, tiny).scaled(0.0))
    assert torch.equal(view.logits(BATCH), tiny.logits(BATCH))
    assert [r.text for r in view.generate(BATCH, GREEDY)] == [r.text for r in tiny.generate(BATCH, GREEDY)]


@every_method
def test_the_mend_does_something(name: str, tiny: VLM) -> None:
    view = tiny.with_mend(fit(name, tiny))
    if name in AROUND_REPLIES:
        assert forward_calls(view) > forward_calls(tiny)
        return
    moved = (view.logits(BATCH) - tiny.logits(BATCH)).abs().amax(1)
    assert moved[1] > 1e-3
    assert moved[2] > 1e-3


def forward_calls(view: VLM) -> int:
    """Calls of the first decoder block while one request with an image is answered."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = view.anatomy.blocks[0].register_forward_hook(count)
    view.generate(BATCH[1:2], Sampling(max_new_tokens=1))
    handle.remove()
    return calls


@every_method
def test_text_only_rows_stay_untouched_by_default(name: str, tiny: VLM) -> None:
    mend = fit(name, tiny)
    assert mend.touches(with_image=False) == (name in CHANGE_TEXT)
    if name not in CHANGE_TEXT:
        view, text = tiny.with_mend(mend), [BATCH[0], BATCH[3]]
        assert torch.equal(view.logits(text), tiny.logits(text))
        assert [r.text for r in view.generate(text, GREEDY)] == [r.text for r in tiny.generate(text, GREEDY)]


def scopes() -> list[tuple[str, dict[str, str]]]:
    """Every method, with each scope that it knows."""
    return [
        (name, parameters)
        for name in GENERATIVE
        for parameters in (
            [{"scope": "prefill"}, {"scope": "every_step"}]
            if "scope" in registry.make_method(name, {}).parameters
            else [{}]
        )
    ]


@pytest.mark.parametrize(("name", "parameters"), scopes())
def test_batched_is_one_at_a_time(name: str, parameters: dict[str, str], tiny: VLM) -> None:
    view = tiny.with_mend(fit(name, tiny, **parameters))
    alone = [view.generate([conversation], GREEDY)[0] for conversation in BATCH]
    together = view.generate(BATCH, GREEDY)
    assert [(r.text, r.stop, r.prompt_tokens, r.new_tokens) for r in together] == [
        (r.text, r.stop, r.prompt_tokens, r.new_tokens) for r in alone
    ]
    torch.testing.assert_close(view.logits(BATCH), torch.cat([view.logits([c]) for c in BATCH]), atol=1e-5, rtol=0)


@every_method
def test_the_base_is_unchanged_after_success_and_failure(name: str) -> None:
    target = tiny_vlm(seed=0)
    target.generate(BATCH, GREEDY)  # transformers leaves hooks of its own on first use
    digest, hooks = full_digest(target.model), hook_count(target.model)
    mend = fit(name, target)
    target.with_mend(mend).generate(BATCH, GREEDY)
    assert (full_digest(target.model), hook_count(target.model)) == (digest, hooks)


@every_method
def test_the_base_is_unchanged_after_a_failed_install(name: str) -> None:
    target = tiny_vlm(seed=0, layers=4)
    target.generate(BATCH, GREEDY)
    mend = fit(name, target)
    digest, hooks = full_digest(target.model), hook_count(target.model)
    far = AddVector(Site("language", 99), torch.ones(target.anatomy.width))
    with pytest.raises(BadParameter, match=r"language\.99\.resid_post"):
        target.with_mend(Mend((*mend.edits, far), mend.card)).generate(BATCH, GREEDY)
    assert (full_digest(target.model), hook_count(target.model)) == (digest, hooks)


@every_method
def test_the_base_is_unchanged_after_an_error_mid_generation(name: str) -> None:
    target = tiny_vlm(seed=0)
    before = target.generate(BATCH, GREEDY)
    view = target.with_mend(fit(name, target))
    digest = full_digest(target.model)
    calls = 0

    def fail_from_third_call(module: nn.Module, args: object, output: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= 3:
            raise RuntimeError("pulled the plug")

    handle = target.anatomy.blocks[1].register_forward_hook(fail_from_third_call)
    hooks = hook_count(target.model)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        view.generate(BATCH, GREEDY)
    assert (full_digest(target.model), hook_count(target.model)) == (digest, hooks)
    handle.remove()
    assert [r.text for r in target.generate(BATCH, GREEDY)] == [r.text for r in before]


@every_method
def test_refused_on_another_base_with_the_reason(name: str, tiny: VLM) -> None:
    mend = fit(name, tiny)
    other = tiny_vlm(seed=1)
    with pytest.raises(MendMismatch, match="was fitted on tiny-0") as refusal:
        other.with_mend(mend)
    assert "vlmend mend" in refusal.value.hint


@every_method
def test_the_card_says_everything(name: str, tiny: VLM) -> None:
    mend = fit(name, tiny, seed=5)
    card = mend.card
    assert (card.method, card.model, card.model_digest, card.seed) == (name, "tiny-0", tiny.model_digest, 5)
    assert card.data_digest == DATA.digest
    assert card.versions["torch"] == torch.__version__
    acts_on_states = any(isinstance(edit, ActivationEdit | ContrastShift) for edit in mend.edits)
    assert bool(card.dose) == acts_on_states
    assert all(dose > 0 for dose in card.dose.values())
    assert registry.make_method(name, {}).passes
    assert registry.make_method(name, {}).data


@any_method
def test_the_doc_page_exists(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "methods" / f"{name}.md"
    assert page.exists()
    assert len(page.read_text()) > 800


def test_blank_and_noise_are_different_corruptions(tiny: VLM) -> None:
    assert fit("cmrm", tiny, corrupt="white").digest != fit("cmrm", tiny, corrupt="noise").digest
    assert blank_image(16).digest != noise_image(16, 0).digest
