"""DuAl-PT: what it reduces to, what descriptions and patches do, and the negative control."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.dual_edits import InsertTokens
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.dual_aligned_prompts import DualAlignedPrompts, described
from vlmend.methods.robustness.maple import Maple
from vlmend.models.dual.patches import patch_embeddings
from vlmend.pictures.named import named_pictures as _known
from vlmend.testing import tiny_clip
from vlmend.training.transport import divergence

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
SEEN = [Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)]
TOLD = [
    Example(f"{name}{k}", caption=text, answers=(name,))
    for name, texts in zip(NAMES, (("six legs", "small"), ("it flies",), ("fur", "four legs")), strict=True)
    for k, text in enumerate(texts)
]
DATA = Dataset("described", (*SEEN, *TOLD))
TEXTS = [f"a photo of a {name}" for name in NAMES]
QUICK = DualAlignedPrompts(steps=3, batch=6, rate=0.05, prompts=2)


def edit_of(mend: Mend) -> InsertTokens:
    (edit,) = (edit for edit in mend.edits if isinstance(edit, InsertTokens))
    return edit


def each(mend: Mend) -> Tensor:
    """What texts are behind each prompt alone, "text prompt width"."""
    edit, target = edit_of(mend), tiny_clip()
    alone = [replace(edit, tokens=tokens, sets=1) for tokens in edit.tokens.chunk(edit.sets, dim=1)]
    return torch.stack([target.with_mend(replace(mend, edits=(one,))).embed_texts(TEXTS) for one in alone], dim=1)


def apart_from_descriptions(mend: Mend) -> float:
    target = tiny_clip()
    told = [target.embed_texts([row.caption or "" for row in TOLD if row.answers[0] == name]) for name in NAMES]
    parts = [divergence(a[None], b[None], torch.ones(1, len(b), dtype=torch.bool), 0.1)
             for a, b in zip(each(mend), told, strict=True)]  # fmt: skip
    return float(torch.cat(parts).mean())


def test_with_one_prompt_and_no_weights_it_is_coop_bit_for_bit() -> None:
    coop = Maple(depth=1, visual=False, steps=3, batch=6, rate=0.05).fit(tiny_clip(), DATA, seed=0)
    plain = replace(QUICK, prompts=1, told=0.0, local=0.0)
    assert torch.equal(edit_of(plain.fit(tiny_clip(), DATA, seed=0)).tokens, edit_of(coop).tokens)
    for changed in ({"told": 1.0}, {"local": 1.0}):
        assert not torch.equal(edit_of(replace(plain, **changed).fit(tiny_clip(), DATA, seed=0)).tokens,
                               edit_of(coop).tokens)  # fmt: skip


def test_a_text_is_the_mean_over_prompts_that_begin_and_end_apart() -> None:
    mend = QUICK.fit(tiny_clip(), DATA, seed=0)
    assert edit_of(mend).tokens.shape == (1, 18, 32)
    alone = each(mend)
    torch.testing.assert_close(tiny_clip().with_mend(mend).embed_texts(TEXTS), normalize(alone.mean(1), dim=1))
    assert float((alone[:, 0] - alone[:, 1]).abs().max()) > 1e-3


def test_descriptions_draw_the_prompts_to_them() -> None:
    method = replace(QUICK, local=0.0, steps=8)
    without, with_them = (replace(method, told=told).fit(tiny_clip(), DATA, seed=0) for told in (0.0, 20.0))
    assert apart_from_descriptions(with_them) < apart_from_descriptions(without) - 0.01


def test_patches_draw_the_prompts_to_them() -> None:
    target = tiny_clip()
    patches = patch_embeddings(target.towers, target.pixels(IMAGES))

    def apart(mend: Mend) -> float:
        texts = each(mend)[[k % 3 for k in range(6)]]
        return float(divergence(texts, patches, torch.ones(patches.shape[:2], dtype=torch.bool), 0.1).mean())

    method = replace(QUICK, told=0.0, steps=8)
    without, with_them = (replace(method, local=local).fit(tiny_clip(), DATA, seed=0) for local in (0.0, 20.0))
    assert apart(with_them) < apart(without) - 0.01


def test_the_order_of_descriptions_does_not_matter_and_whose_they_are_does() -> None:
    tokens = [
        edit_of(method.fit(tiny_clip(), replace(DATA, examples=(*SEEN, *told)), seed=0)).tokens
        for method, told in (
            (QUICK, TOLD), (QUICK, TOLD[::-1]), (replace(QUICK, descriptions="shuffled"), TOLD),
            (replace(QUICK, descriptions="names"), []),
        )
    ]  # fmt: skip
    torch.testing.assert_close(tokens[1], tokens[0], atol=1e-3, rtol=0)
    assert all(float((other - tokens[0]).abs().max()) > 1e-2 for other in tokens[2:])


def test_shuffled_descriptions_are_all_those_of_another() -> None:
    """Three names in a ring: every one gets the embedding of what is told of one of the others."""
    target = tiny_clip()
    one_each = Dataset("one each", (*SEEN, *(row for row in TOLD if row.caption in ("six legs", "it flies", "fur"))))
    known = DualAlignedPrompts(descriptions="own")
    own, other = (
        replace(known, descriptions=how)._wanted(target, _known(one_each), one_each, 0)[0][:, 0]  # pyright: ignore[reportPrivateUsage, reportArgumentType]
        for how in ("own", "shuffled")
    )
    places = (other[:, None] - own[None]).abs().amax(2).argmin(1).tolist()
    assert sorted(places) == [0, 1, 2]
    assert all(place != k for k, place in enumerate(places))


def test_every_built_in_name_has_two_descriptions_that_begin_with_it() -> None:
    data = DualAlignedPrompts().builtin()
    names = sorted({row.answers[0] for row in data.examples if row.image is not None})
    texts = described(data, names)
    assert len(texts) == 267
    assert all(len(own) == 2 and all(one.startswith(f"a photo of a {name}, ") for one in own)
               for name, own in texts.items())  # fmt: skip


def test_a_name_without_a_description_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match=r"describes 2 of 3 names; not bee"):
        QUICK.fit(tiny_clip(), replace(DATA, examples=(*SEEN, TOLD[0], TOLD[-1])), seed=0)
    for wrong in ({"prompts": 0}, {"told": -1.0}, {"local": -1.0}, {"blur": 0.0}, {"rate": 0.0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            DualAlignedPrompts(**wrong)
