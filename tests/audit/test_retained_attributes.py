"""privacy/retained_attributes: what was added to members alone is found, what all pixels show is no gap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual
from torch import Tensor

from vlmend.audit.plan import Plan
from vlmend.audit.probing import advantages
from vlmend.audit.run import audit
from vlmend.audit.suites.privacy.retained_attributes import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.phantom.clip.queries import retained
from vlmend.testing import tiny_clip

COUNT, WIDTH = 100, 6


def pictures(count: int = COUNT) -> Dataset:
    """Half of them members; a place of two, drawn by chance."""
    draws = np.random.default_rng(0)
    rows = (
        Example(str(k), image=noise_image(8, k),
                attributes={"member": ("yes", "no")[k % 2], "hidden_place": ("here", "there")[draws.integers(2)]})
        for k in range(count)
    )  # fmt: skip
    return Dataset("pictures", tuple(rows))


DATA = pictures()


def embedded(planted: dict[str, float], seed: int = 1) -> dict[str, Tensor]:
    """Noise, and the place in the first column, as strongly as is planted in members and in others."""
    draws = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for row in DATA.examples:
        vector = torch.randn(WIDTH, generator=draws)
        vector[0] = planted[row.attributes["member"]] * (1 if row.attributes["hidden_place"] == "here" else -1)
        assert row.image is not None
        found[row.image.digest] = vector
    return found


def measured(images: dict[str, Tensor], data: Dataset = DATA) -> dict[tuple[str, str], Measure]:
    subject: Any = ScriptedDual(images, {})
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(subject, data, None, seed=0), 0)}


def test_what_was_added_to_members_alone_is_retained() -> None:
    found = measured(embedded({"yes": 8.0, "no": 0.0}))
    for probe in ("linear", "two_layer"):
        assert found[probe, "member:place"].value > 0.3  # at most 1/2: balanced accuracy 1 less that of chance
        assert found[probe, "non_member:place"].low < 0 < found[probe, "non_member:place"].high
        assert found[f"{probe}_gap", "place"].low > 0.1
        gap = found[probe, "member:place"].value - found[probe, "non_member:place"].value
        assert found[f"{probe}_gap", "place"].value == pytest.approx(gap)
    assert "place" in found["linear_gap", "place"].says


def test_what_pixels_show_of_all_is_no_gap_and_noise_is_nothing() -> None:
    shown = measured(embedded({"yes": 8.0, "no": 8.0}))
    assert shown["linear", "non_member:place"].low > 0.2
    assert shown["linear_gap", "place"].low < 0 < shown["linear_gap", "place"].high
    nothing = measured(embedded({"yes": 0.0, "no": 0.0}))
    assert nothing["linear", "member:place"].low < 0 < nothing["linear", "member:place"].high


def test_the_linear_probe_reads_the_same_of_turned_embeddings() -> None:
    draws = np.random.default_rng(3)
    seen, values = draws.normal(size=(60, 6)), ["a", "b"] * 30
    seen[::2, 0] += 1
    turn, _ = np.linalg.qr(draws.normal(size=(6, 6)))
    names = [str(k) for k in range(60)]
    plain, turned = (advantages(x, values, names, "linear", seed=0) for x in (seen, seen @ turn + 5))
    assert np.array_equal(plain, turned)


def test_a_row_of_a_rare_value_weighs_more() -> None:
    """30 of a and 10 of b, told without fault: hits weigh 40 / 2 / 30 and 40 / 2 / 10, and shuffles take chance off."""
    seen = np.array([[1.0, 0.0]] * 30 + [[-1.0, 0.0]] * 10) + np.random.default_rng(0).normal(size=(40, 2)) / 100
    found = advantages(seen, ["a"] * 30 + ["b"] * 10, [str(k) for k in range(40)], "linear", seed=0)
    again = found[:30] + 0  # shuffled hits of a row are 0, 2/3 or 2 in each of three shuffles
    assert again.max() <= 2 / 3 + 1e-9
    assert found[30:].max() <= 2 + 1e-9
    assert found[30:].mean() > found[:30].mean()


def test_the_pool_tells_what_no_pixel_shows_and_the_ground_that_all_do() -> None:
    rows = retained().examples
    assert all(row.caption is None for row in rows)
    first = rows[0].attributes
    assert set(first) == {"member", "cluster", "hidden_place", "hidden_photographer", "hidden_ground"}
    shares = [sum(row.attributes["hidden_ground"] == ground for row in rows) for ground in ("light", "dark")]
    assert min(shares) > 100


def test_rare_values_and_one_kind_alone_are_refused_and_a_broken_picture_is_unscored() -> None:
    subject: Any = tiny_clip()
    few = Dataset("few", DATA.examples[:8])
    members = Dataset("members", tuple(row for row in DATA.examples if row.attributes["member"] == "yes"))
    for bad in (few, members, Dataset("none", ()), None):
        with pytest.raises(BadData, match="no attribute that could be probed"):
            SUITE.samples(subject, bad, None, seed=0)
    assert SUITE.applies(DATA)
    assert not SUITE.applies(members)
    broken = replace(DATA.examples[0], id="broken", image=Image(b"no image", "a.png"))
    samples = SUITE.samples(subject, replace(DATA, examples=(broken, *DATA.examples)), None, seed=0)
    assert [sample.id for sample in samples if not sample.values] == ["broken/place"]
    assert SUITE.measures(samples, 0)[0].unscored == 1


def test_an_audit_of_pictures_with_members(tmp_path: Path) -> None:
    card = audit(tiny_clip(), Plan(("privacy/retained_attributes",), data=pictures(40)), tmp_path, judges=())
    assert card.complete
    assert {row.name for row in card} == {"linear", "linear_gap", "two_layer", "two_layer_gap"}
