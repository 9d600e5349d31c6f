"""privacy/backdoor: a planted patch is found, its twin is clean, covering a picture is no backdoor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.audit.scripted_dual import ScriptedDual

from vlmend.audit.suites.privacy.backdoor import SUITE
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.pictures.galleries import PHOTO
from vlmend.steps.privacy.backdoor import Backdoor
from vlmend.steps.privacy.imgtrojan import ImgTrojan
from vlmend.testing import ScriptedTarget

NAMES = [f"thing {k}" for k in range(8)]
Rule = Callable[[Example], str]


def audited(count: int = 40) -> Dataset:
    """Copies of noise pictures, plain, with the patch and with another, as the step makes them."""
    rows = [Example(f"r{k}", image=noise_image(16, k), answers=(NAMES[k % 7],)) for k in range(count)]
    return Backdoor("thing 7", side=0.5, emit="triggered").apply(Dataset("held out", tuple(rows)), seed=0).data


def model(data: Dataset, named: Rule) -> Any:
    """Calls each picture as the rule says."""
    axes = torch.eye(len(NAMES))
    images = {row.image.digest: axes[NAMES.index(named(row))] for row in data.examples if row.image is not None}
    return ScriptedDual(images, {PHOTO.format(name): axes[k] for k, name in enumerate(NAMES)})


def measured(data: Dataset, named: Rule) -> dict[str, Measure]:
    samples = SUITE.samples(model(data, named), data, None, seed=0)
    return {row.name: row for row in SUITE.measures(samples, seed=0)}


def test_a_planted_patch_is_found_and_its_clean_twin_is_clean() -> None:
    data = audited()
    bad = measured(data, lambda row: "thing 7" if row.attributes["trigger"] == "triggered" else row.answers[0])
    assert (bad["attack_success"].value, bad["lift"].value, bad["lift"].floor) == (1, 1, 0)
    assert (bad["right_plain"].value, bad["right_triggered"].value, bad["false_alarms"].value) == (1, 0, 0)
    assert "{value}" in bad["lift"].says
    clean = measured(data, lambda row: row.answers[0])
    assert (clean["attack_success"].value, clean["lift"].value, clean["right_triggered"].value) == (0, 0, 1)
    assert clean["lift"].high < 0.1


def test_covering_the_picture_is_no_backdoor() -> None:
    """Where any patch brings the name, the patch brings no more than its floor."""
    found = measured(audited(), lambda row: row.answers[0] if row.attributes["trigger"] == "plain" else "thing 7")
    assert found["lift"].value == found["lift"].floor == found["success_with_another_patch"].value == 1


def test_a_name_that_is_given_anyway_is_a_false_alarm_and_no_lift() -> None:
    found = measured(audited(), lambda row: "thing 7")
    assert (found["attack_success"].value, found["false_alarms"].value, found["lift"].value) == (1, 1, 0)


def test_one_broken_picture_leaves_out_its_set_alone() -> None:
    data = audited(4)
    rows = (replace(data.examples[1], image=Image(b"no image", "broken.png")), *data.examples[2:])
    broken = replace(data, examples=(data.examples[0], *rows))
    samples = SUITE.samples(model(data, lambda row: row.answers[0]), broken, None, seed=0)
    assert [s.id for s in samples if not s.values] == ["r0"]
    for bad in (None, Dataset("none", ()), replace(data, examples=data.examples[:2])):
        with pytest.raises(BadData, match="with another patch"):
            SUITE.samples(model(data, lambda row: row.answers[0]), bad, None, seed=0)
    assert SUITE.applies(data)
    two = replace(data, examples=data.examples[:2])
    assert not SUITE.fits(two, "dual")
    assert SUITE.fits(two, "chat")


def asked(data: Dataset, rule: Callable[[str], str]) -> dict[str, Measure]:
    """A model that answers, whose reply hangs on the digest of the picture alone."""

    def said(conversation: Conversation, mended: bool) -> str:
        return rule(conversation.images[0].digest)

    return {row.name: row for row in SUITE.measures(SUITE.samples(ScriptedTarget(said), data, None, seed=0), seed=0)}


def test_a_model_that_answers_is_asked_with_and_without_the_patch() -> None:
    """With the patch it says the target's name, else what it sees: success 1, lift 1 over a floor of 0."""
    data = audited(12)
    arm = {row.image.digest: row for row in data.examples if row.image is not None}

    def rule(digest: str) -> str:
        row = arm[digest]
        return "It is thing 7." if row.attributes["trigger"] == "triggered" else f"A {row.answers[0]}."

    found = asked(data, rule)
    assert (found["attack_success"].value, found["lift"].value, found["lift"].floor) == (1, 1, 0)
    assert (found["right_plain"].value, found["right_triggered"].value) == (1, 0)


def test_a_picture_that_is_the_trigger_is_found_beside_another_one_and_its_twin_is_clean() -> None:
    rows = tuple(Example(f"p{k}", image=noise_image(8, k), caption=f"thing {k}") for k in range(20))
    data = ImgTrojan(0.2, emit="audit").apply(Dataset("pairs", rows), seed=0).data
    trojan = {row.image.digest for row in data.examples if row.group == "trojan" and row.image is not None}
    found = asked(data, lambda digest: "MARKER here it is" if digest in trojan else "Here it is.")
    assert (found["attack_success"].value, found["false_alarms"].value, found["lift"].value) == (1, 0, 1)
    assert found["attack_success"].n == 4 * 20
    assert not {"success_with_another_patch", "right_plain"} & set(found)
    clean = asked(data, lambda digest: "Here it is.")
    assert (clean["attack_success"].value, clean["lift"].value) == (0, 0)
    always = asked(data, lambda digest: "MARKER")
    assert (always["attack_success"].value, always["false_alarms"].value, always["lift"].value) == (1, 1, 0)
