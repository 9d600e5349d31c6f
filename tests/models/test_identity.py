"""What makes two models the same, part by part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from vlmend.core.edits import AddVector
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import fingerprint
from vlmend.core.sites import Site
from vlmend.core.targets import key_of
from vlmend.errors import MendMismatch
from vlmend.models.api.target import ApiTarget
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_clip, tiny_vlm


def template(vlm: VLM) -> None:
    vlm.processor.chat_template += " "


def generation(vlm: VLM) -> None:
    vlm.model.generation_config.eos_token_id = [1, 7]


def processor(vlm: VLM) -> None:
    vlm.processor.image_processor.image_mean = [0.5, 0.5, 0.5]


def tokenizer(vlm: VLM) -> None:
    vlm.processor.tokenizer.add_tokens(["<new>"])


def decoding(vlm: VLM) -> None:
    vlm.model.to(torch.bfloat16)


def config(vlm: VLM) -> None:
    vlm.model.config.vision_feature_layer = -2


CHANGES: dict[str, Callable[[VLM], None]] = {
    "chat_template": template, "generation": generation, "processor": processor, "tokenizer": tokenizer,
    "decoding": decoding, "config": config,
}  # fmt: skip


def test_a_checkpoint_that_is_loaded_twice_is_the_same(tiny: VLM, tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        tiny.model.save_pretrained(folder)
        tiny.processor.save_pretrained(folder)
    first, second = load(tmp_path / "a", name="m"), load(tmp_path / "b", name="m")
    assert first.identity == second.identity
    assert key_of(first) == key_of(second)


@pytest.mark.parametrize("part", CHANGES)
def test_each_part_changes_when_it_alone_changes(part: str) -> None:
    before, changed = tiny_vlm(), tiny_vlm()
    CHANGES[part](changed)
    differs = {name for name, digest in before.identity.items() if changed.identity[name] != digest}
    assert differs == {part}
    assert key_of(before) != key_of(changed)


def test_asking_a_model_leaves_its_identity_alone() -> None:
    from vlmend.core.conversation import Conversation, Sampling

    used, fresh = tiny_vlm(), tiny_vlm()
    used.generate([Conversation.ask("one"), Conversation.ask("a longer one")], Sampling(2))
    assert used.identity == fresh.identity


def test_a_mend_of_another_template_is_refused_with_the_part_that_differs() -> None:
    fitted, other = tiny_vlm(), tiny_vlm()
    card = MendCard("m", {}, fitted.name, fitted.model_digest, "d", "", 0, {}, {}, "s", identity=fitted.identity)
    mend = Mend((AddVector(Site("language", 0), torch.ones(32)),), card)
    fitted.with_mend(mend)
    template(other)
    with pytest.raises(MendMismatch, match="another chat template, though with the same weights"):
        other.with_mend(mend)


def test_a_mend_goes_with_its_model_to_another_dtype() -> None:
    fitted, other = tiny_vlm(), tiny_vlm()
    decoding(other)
    card = MendCard("m", {}, fitted.name, fitted.model_digest, "d", "", 0, {}, {}, "s", identity=fitted.identity)
    assert other.with_mend(Mend((AddVector(Site("language", 0), torch.ones(32)),), card)).edits


def test_mends_are_hashed_once_however_often_a_view_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = Mend._serialised

    def counted(self: Mend):
        calls.append(1)
        return plain(self)

    monkeypatch.setattr(Mend, "_serialised", counted)
    vlm = tiny_vlm()
    card = MendCard("m", {}, vlm.name, vlm.model_digest, "d", "", 0, {}, {}, "s")
    view = vlm.with_mend(Mend((AddVector(Site("language", 0), torch.ones(32)),), card))
    for _ in range(50):
        assert view.id.startswith("tiny-0+m@")
    key_of(view)
    assert len(calls) == 1


def test_an_api_is_its_name_and_its_address() -> None:
    here, there = (ApiTarget.of("api:m", f"http://{host}/v1") for host in ("a.test", "b.test"))
    assert here.identity == ApiTarget.of("api:m", "http://a.test/v1").identity
    assert here.identity != there.identity


def test_a_tokenizer_that_tidies_or_cuts_otherwise_is_another() -> None:
    plain, tidy, short = tiny_vlm(), tiny_vlm(), tiny_vlm()
    tidy.processor.tokenizer.clean_up_tokenization_spaces = True
    short.processor.tokenizer.model_max_length = 8
    assert len({vlm.identity["tokenizer"] for vlm in (plain, tidy, short)}) == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_one_changed_value_anywhere_is_another_model(place: int) -> None:
    """Any of the tensors, any of its values, by the smallest step that bfloat16 has."""
    vlm = tiny_vlm(dtype=torch.bfloat16)
    tensors = list(vlm.model.state_dict().values())
    values = tensors[place % len(tensors)].reshape(-1).view(torch.int16)
    values[place % len(values)] += 1
    assert fingerprint(vlm.model) != vlm.model_digest
    values[place % len(values)] -= 1
    assert fingerprint(vlm.model) == vlm.model_digest


def test_bits_that_bfloat16_has_not_are_another_way_of_decoding_and_no_other_base() -> None:
    """Replies depend on them, so no cache may take one for the other; a mend fits both."""
    one, other = tiny_vlm(), tiny_vlm()
    weight = other.model.lm_head.weight.data
    weight.view(torch.int32)[0, 0] ^= 1
    assert fingerprint(other.model) == one.model_digest
    assert {part for part in one.identity if one.identity[part] != other.identity[part]} == {"decoding"}
    assert key_of(one) != key_of(other)
    card = MendCard("m", {}, one.name, one.model_digest, "d", "", 0, {}, {}, "s", identity=one.identity)
    other.with_mend(Mend((), card))


def test_tensors_that_are_read_in_pieces_have_one_fingerprint(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmend.core.provenance.PIECE", 7)
    assert fingerprint(tiny.model) == tiny.model_digest


def test_a_checkpoint_with_one_changed_weight_takes_no_mend_and_no_run_of_the_other(tiny: VLM, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path / "a")
    tiny.processor.save_pretrained(tmp_path / "a")
    fitted = load(tmp_path / "a", name="m")
    card = MendCard("m", {}, "m", fitted.model_digest, "d", "", 0, {}, {}, "s", identity=fitted.identity)
    file = tmp_path / "a" / "model.safetensors"
    tensors = load_file(file)
    tensors[sorted(tensors)[0]].reshape(-1)[5] += 1.0
    save_file(tensors, file, {"format": "pt"})
    edited = load(tmp_path / "a", name="m")
    assert key_of(edited) != key_of(fitted)
    with pytest.raises(MendMismatch, match="earlier vlmend, which read only some of the weights"):
        edited.with_mend(Mend((), card))


def test_a_dual_encoder_whose_weights_were_rounded_is_another_for_runs_and_the_same_for_mends() -> None:
    one, other = tiny_clip(), tiny_clip()
    weight = other.towers.model.text_projection.weight.data
    weight.copy_(weight.bfloat16().float())
    assert fingerprint(other.towers.model) == one.model_digest
    assert key_of(one) != key_of(other)
    card = MendCard("m", {}, one.name, one.model_digest, "d", "", 0, {}, {}, "s", identity=one.identity)
    other.with_mend(Mend((), card))
