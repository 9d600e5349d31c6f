"""privacy/clip_memorisation: pairs that one model was trained on stand out against its reference, and no others."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual
from tools.phantom.clip_memory import never_shown, taught

from vlmend.audit.plan import Plan, suites_of
from vlmend.audit.run import audit
from vlmend.audit.suites.privacy.clip_memorisation import SUITE, alignment
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData, RunProblem, UsageError
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.changes import variants
from vlmend.testing import tiny_clip
from vlmend.testing.stages import plain_image

Rows = dict[tuple[str, str], Measure]


def measured(samples: list[Sample]) -> Rows:
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def dealt(seed: int) -> Dataset:
    """The pairs that phantom-clip never saw, dealt by chance: for the model, for the reference, for nobody."""
    rows = never_shown().examples
    told = [replace(row, attributes={**row.attributes, "member": ("yes", "reference", "no")[k % 3]})
            for k, row in enumerate(random.Random(seed).sample(rows, len(rows)))]  # fmt: skip
    return Dataset("dealt", tuple(told))


def of_kind(data: Dataset, kind: str) -> list[Example]:
    return [row for row in data.examples if row.attributes["member"] == kind]


def test_alignment_worked_out_by_hand() -> None:
    """Cosine 0.6 with the own text; 0.8 with the one foreign text, 0.0 of the own text with the one foreign picture."""
    rows = [
        Example("a", image=plain_image("red"), caption="red", attributes={"member": "yes"}),
        Example("b", image=plain_image("blue"), caption="blue", attributes={"member": "no"}),
        Example("c", image=plain_image("blue"), caption="own", attributes={"member": "no", "cluster": "a"}),
    ]
    red, blue = torch.tensor([0.6, 0.8, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    told = scripted(rows, [red, blue, blue], [torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]), red])
    assert alignment(told, rows[:1], rows[1:]) == pytest.approx([0.6 - 0.8 - 0.0])


def scripted(rows: Sequence[Example], images: Sequence[torch.Tensor], texts: Sequence[torch.Tensor]) -> Any:
    """Sees in every changed view of a picture what it sees in the picture."""
    seen: dict[str, torch.Tensor] = {}
    for row, vector in zip(rows, images, strict=True):
        assert row.image is not None
        picture = row.image.decode()
        seen |= {Image.from_pixels(one).digest: vector for one in (picture, *variants(picture))}
    return ScriptedDual(seen, {str(row.caption): vector for row, vector in zip(rows, texts, strict=True)})


def drawn_pool(count: int) -> Dataset:
    kinds = ("yes", "reference", "no")
    return Dataset("drawn", tuple(
        Example(f"{k}", image=noise_image(8, k), caption=f"thing {k}", attributes={"member": kinds[k % 3]})
        for k in range(count)
    ))  # fmt: skip


def remembering(data: Dataset, kind: str) -> Any:
    """Random embeddings, in which picture and text of the pairs of a kind lean to each other."""
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(len(data.examples), 64, generator=generator) for _ in range(2))
    known = torch.tensor([row.attributes["member"] == kind for row in data.examples])
    texts = texts + 0.7 * images * known[:, None]
    return scripted(data.examples, list(images), list(texts))


def test_a_planted_memory_is_found_and_a_swap_of_roles_mirrors_it() -> None:
    data = drawn_pool(90)
    own, other = (remembering(data, kind) for kind in ("yes", "reference"))
    found, swapped = (
        measured(SUITE.beside(two).samples(one, data, None, seed=0)) for one, two in ((own, other), (other, own))
    )
    for group in ("member", "reference_only", "non_member"):
        assert swapped["memorisation", group].value == pytest.approx(-found["memorisation", group].value, abs=1e-12)
    assert found["memorisation", "member"].low > 0.4
    assert found["memorisation", "reference_only"].high < -0.4
    assert found["memorisation", "non_member"].value == pytest.approx(0, abs=0.05)
    excess = found["excess", "member"]
    assert excess.low > 0.4
    assert excess.value == found["memorisation", "member"].value - found["memorisation", "non_member"].value
    assert found["auroc", "memorisation"].value > 0.9
    assert found["auroc", "blind_words"].n == found["auroc", "memorisation"].n == 60


@pytest.mark.slow
def test_what_phantom_clip_was_taught_stands_out() -> None:
    clip, data = load_dual(phantom_clip()), dealt(0)
    own, other = (taught(clip, of_kind(data, kind), 12) for kind in ("yes", "reference"))
    found = measured(SUITE.beside(other).samples(own, data, None, seed=0))
    assert found["excess", "member"].low > 0
    assert found["auroc", "memorisation"].low > 0.5
    assert found["memorisation", "reference_only"].value < found["memorisation", "non_member"].value


def test_a_model_beside_itself_holds_nothing() -> None:
    found = measured(SUITE.beside(tiny_clip(0)).samples(tiny_clip(0), drawn_pool(12), None, seed=0))
    assert {row.value for (name, _), row in found.items() if name == "memorisation"} == {0.0}
    assert {row.floor for (name, _), row in found.items() if name == "memorisation"} == {0.0}


def test_a_broken_picture_is_unscored_and_data_that_do_not_say_are_refused() -> None:
    data, suite, tiny = drawn_pool(9), SUITE.beside(tiny_clip(1)), tiny_clip(0)
    broken = replace(data.examples[2], image=Image(b"no image", "broken.png"))
    samples = suite.samples(
        tiny, replace(data, examples=(*data.examples[:2], broken, *data.examples[3:])), None, seed=0
    )
    assert [s.id for s in samples if not s.values] == [broken.id]
    assert not [s for s in samples if math.isnan(sum(s.values.values()))]
    for bad in (None, Dataset("none", ()), Dataset("members", tuple(of_kind(data, "yes")))):
        with pytest.raises(BadData, match="some are needed of either"):
            suite.samples(tiny, bad, None, seed=0)
    with pytest.raises(UsageError, match="needs a reference"):
        SUITE.samples(tiny, data, None, seed=0)


def test_an_audit_asks_for_the_reference_and_another_one_is_another_run(tmp_path: Path) -> None:
    data = drawn_pool(12)
    plan = Plan(("privacy/clip_memorisation",), data=data)
    with pytest.raises(UsageError, match="none is given"):
        audit(tiny_clip(0), plan, tmp_path)
    card = audit(tiny_clip(0), plan, tmp_path, reference=tiny_clip(1))
    assert card.provenance["reference"]["target"] == "tiny-clip-1"
    assert audit(tiny_clip(0), plan, tmp_path, reference=tiny_clip(1)) == card
    with pytest.raises(RunProblem, match="reference differs"):
        audit(tiny_clip(0), plan, tmp_path, reference=tiny_clip(2))
    assert "privacy/clip_memorisation" not in suites_of(["privacy"], data, "dual")
    assert "privacy/clip_memorisation" in suites_of(["privacy"], data, "dual", reference=True)
