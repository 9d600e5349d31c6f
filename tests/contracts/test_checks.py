"""The checks themselves: a plug-in that breaks one law is told by its name, the law and what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from vlmend.core.contracts import AbstractExporter, AbstractMethod, AbstractStep, DataEdit, Dropped, Sample, SampleSuite
from vlmend.core.dual_edits import ScaleLogits
from vlmend.core.edits import AnyEdit, LoadAdapter, RewritePrompt
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Measure
from vlmend.core.mend import Mend
from vlmend.core.splits import Split
from vlmend.core.targets import Access, Kind
from vlmend.data.catalogue import adapters
from vlmend.errors import UsageError
from vlmend.models.vlm import VLM
from vlmend.testing import (
    check_adapter,
    check_exporter,
    check_method,
    check_step,
    check_suite,
    laws_of_exporter,
    laws_of_method,
    laws_of_step,
    laws_of_suite,
)

NUMBERS = count()


@dataclass(frozen=True)
class Sound(AbstractMethod[Any]):
    """Keeps every law."""

    name: ClassVar[str] = "sound"
    source: ClassVar[str] = "this test"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "none"
    word: str = "Please: "

    def learn(self, target: Any, data: Dataset, *, seed: int) -> Mend:
        return self.made(target, data, seed, [self.edit()], {})

    def edit(self) -> AnyEdit:
        return RewritePrompt(before=self.word, when="with_image")


class Moody(Sound):
    """Its words are others each time."""

    def edit(self) -> AnyEdit:
        return RewritePrompt(before=f"{next(NUMBERS)} ", when="with_image")


class Silent(Sound):
    """Does nothing."""

    def edit(self) -> AnyEdit:
        return RewritePrompt(when="with_image")


class Everywhere(Sound):
    """Changes text-only requests without declaring it."""

    def edit(self) -> AnyEdit:
        return RewritePrompt(before=self.word)


class Unsaid(Sound):
    """Does not say what a user pays."""

    passes: ClassVar[str] = " "


class Deeper(Sound):
    """Reads more than it declares."""

    def learn(self, target: Any, data: Dataset, *, seed: int) -> Mend:
        return self.made(target, data, seed + 0 * target.layers, [self.edit()], {})


class Careless(Sound):
    """Writes the wrong seed on the card."""

    def learn(self, target: Any, data: Dataset, *, seed: int) -> Mend:
        return self.made(target, data, 0, [self.edit()], {})


class Anonymous(Sound):
    """Knows its base by the weights alone."""

    def learn(self, target: Any, data: Dataset, *, seed: int) -> Mend:
        mend = self.made(target, data, seed, [self.edit()], {})
        return replace(mend, card=replace(mend.card, identity={}))


class Messy(Sound):
    """Leaves a hook on the model."""

    needs: ClassVar[Access] = "weights"

    def learn(self, target: Any, data: Dataset, *, seed: int) -> Mend:
        target.model.register_forward_hook(lambda *_: None)
        return self.made(target, data, seed, [self.edit()], {})


class Brittle(Sound):
    """Ends at the first picture that cannot be read."""

    def learn(self, target: Any, data: Dataset, *, seed: int) -> Mend:
        if any(row.image is not None for row in data.examples):
            raise MemoryError("picture")
        return self.made(target, data, seed, [self.edit()], {})


def test_a_sound_method_passes() -> None:
    check_method(Sound)


@pytest.mark.parametrize(
    ("method", "law"),
    [
        (Moody, "same_seed_same_mend"), (Silent, "it_does_something"), (Everywhere, "text_only_requests_stay"),
        (Unsaid, "says_what_it_is"), (Deeper, "declared_access_is_enough"), (Careless, "the_card_says_everything"),
        (Anonymous, "refused_on_another_identity"), (Messy, "the_base_is_unchanged"),
        (Brittle, "a_bad_row_is_left_out_by_name"),
    ],
)  # fmt: skip
def test_a_method_that_breaks_a_law_is_told_by_it(method: type[Sound], law: str) -> None:
    with pytest.raises(AssertionError, match=f"^sound breaks the law {law}: "):
        laws_of_method(method)[law]()


class Projecting(Sound):
    """An adapter of the projector: what the tower makes of an image is another."""

    changes_text: ClassVar[bool] = True

    def edit(self) -> AnyEdit:
        generator = torch.Generator().manual_seed(0)
        down, up = torch.randn(1, 32, generator=generator), torch.randn(32, 1, generator=generator)
        return LoadAdapter("model.multi_modal_projector.linear_2", down, up)


def test_an_adapter_before_the_decoder_keeps_every_law() -> None:
    check_method(Projecting)


def test_image_features_kept_by_image_alone_are_told_by_the_order_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views with one key share what the tower made of an image, whatever mend it was made under."""
    monkeypatch.setattr(VLM, "sight", "")
    with pytest.raises(AssertionError, match=r"any_order_of_calls_is_the_same: on one model, in the order .* replies"):
        laws_of_method(Projecting)["any_order_of_calls_is_the_same"]()


def test_a_check_names_every_law_that_is_broken() -> None:
    with pytest.raises(AssertionError) as broken:
        check_method(Everywhere)
    assert str(broken.value) == (
        "sound breaks the law text_only_requests_stay: changes_text is False, and its edits say True."
    )
    with pytest.raises(AssertionError, match=r"law same_seed_same_mend: .*\n.*law .*"):
        check_method(Moody)


def test_a_page_without_its_sections_is_told_by_what_is_lacking(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    law = laws_of_method(Sound, tmp_path)["the_page_says_it"]
    with pytest.raises(AssertionError, match=r"there is no sound\.md"):
        law()
    page = tmp_path / "methods" / "sound.md"
    page.write_text(f"# sound: words\n\n## What it does\n{'a' * 200}\n## Cost\n")
    with pytest.raises(AssertionError, match="has no section When it, only What it does, Cost"):
        law()
    page.write_text(page.read_text() + "## When it fails\n")
    with pytest.raises(AssertionError, match="does not explain word"):
        law()
    page.write_text(page.read_text() + "`word`\n")
    law()


# --- steps


@dataclass(frozen=True)
class SoundStep(AbstractStep):
    """Drops the first of several rows, whatever it is."""

    name: ClassVar[str] = "first"
    source: ClassVar[str] = "this test"
    why: ClassVar[str] = "the first"

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        first, *rest = data.examples
        return DataEdit(replace(data, examples=tuple(rest)), (), (Dropped(first, self.why),))


class Mute(SoundStep):
    why: ClassVar[str] = ""


class Losing(SoundStep):
    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        edit = super().apply(data, seed=seed)
        return replace(edit, data=replace(edit.data, examples=edit.data.examples[1:]))


class Doubling(SoundStep):
    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        return DataEdit(replace(data, examples=(*data.examples, data.examples[0])))


class Adding(SoundStep):
    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        return DataEdit(replace(data, examples=(*data.examples, Example("new"))))


class Restless(SoundStep):
    """Drops one more row each time, and claims that twice is once."""

    idempotent: ClassVar[bool] = True


class Laundering(SoundStep):
    """Loses the licence."""

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        edit = super().apply(data, seed=seed)
        return replace(edit, data=replace(edit.data, licence=""))


def test_a_sound_step_passes() -> None:
    check_step(SoundStep)


@pytest.mark.parametrize(
    ("step", "law"),
    [
        (Mute, "reasons_are_told"), (Losing, "every_row_is_accounted_for"), (Doubling, "ids_stay_unique"),
        (Adding, "every_row_is_accounted_for"), (Restless, "twice_is_once"), (Laundering, "the_input_stays_as_it_was"),
    ],
)  # fmt: skip
def test_a_step_that_breaks_a_law_is_told_by_it(step: type[SoundStep], law: str) -> None:
    with pytest.raises(AssertionError, match=f"^first breaks the law {law}: "):
        laws_of_step(step)[law]()


# --- suites


class SoundSuite(SampleSuite[Dataset]):
    """Whether a row has a caption of more than 14 letters."""

    name: ClassVar[str] = "utility/long"
    axis: ClassVar[Axis] = "utility"
    works_on: ClassVar[Kind] = "data"
    needs: ClassVar[Access] = "rows"
    about: ClassVar[str] = "long captions"

    def samples(
        self, subject: Dataset, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        rows = subject.examples[:limit] or (Example("none"),)
        return [self.sample(row, "long" if len(row.caption or "") > 14 else "short") for row in rows]

    def sample(self, row: Example, label: str) -> Sample:
        return Sample(row.id, "rows", row.id, "", label=label)

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        scored = [sample for sample in samples if sample.label]
        n = len(scored)
        value = sum(sample.label == "long" for sample in scored) / n if n else float("nan")
        return [self.row(value, n, len(samples) - n)]

    def row(self, value: float, n: int, unscored: int) -> Measure:
        return Measure(
            self.axis, self.name, "long", "rows", value, value, value, n, unscored, "neither", ("long",),
            compared="share",
        )  # fmt: skip


class Hiding(SoundSuite):
    """Counts what could not be scored as a miss."""

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return [self.row(sum(sample.label == "long" for sample in samples) / len(samples), len(samples), 0)]


class Forgetting(SoundSuite):
    """Does not count what could not be scored at all."""

    def row(self, value: float, n: int, unscored: int) -> Measure:
        return super().row(value, n, 0)


class Twins(SoundSuite):
    def sample(self, row: Example, label: str) -> Sample:
        return Sample("same", "rows", row.id, "", label=label)


class Endless(SoundSuite):
    """Knows no limit."""

    def samples(
        self, subject: Dataset, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        return super().samples(subject, data, None, seed=seed)


class Hitless(SoundSuite):
    def row(self, value: float, n: int, unscored: int) -> Measure:
        return replace(super().row(value, n, unscored), hit=())


class Outside(SoundSuite):
    def row(self, value: float, n: int, unscored: int) -> Measure:
        return replace(super().row(value, n, unscored), low=value + 0.1, high=value + 0.2)


class Drifting(SoundSuite):
    def sample(self, row: Example, label: str) -> Sample:
        return Sample(row.id, "rows", row.id, str(next(NUMBERS)), label=label)


def test_a_sound_suite_passes() -> None:
    check_suite(SoundSuite())


@pytest.mark.parametrize(
    ("suite", "law"),
    [
        (Hiding, "unscored_samples_never_count"), (Hiding, "nothing_scored_is_no_number"),
        (Forgetting, "unscored_samples_never_count"), (Twins, "sample_ids_are_unique"), (Endless, "the_limit_is_kept"),
        (Hitless, "rows_say_how_they_are_compared"), (Outside, "values_lie_within_their_intervals"),
        (Drifting, "taken_twice_is_the_same"),
    ],
)  # fmt: skip
def test_a_suite_that_breaks_a_law_is_told_by_it(suite: type[SoundSuite], law: str) -> None:
    with pytest.raises(AssertionError, match=f"^utility/long breaks the law {law}: "):
        laws_of_suite(suite())[law]()


# --- exporters and adapters


class SoundExporter(AbstractExporter):
    """Refuses everything."""

    name: ClassVar[str] = "nothing"
    about: ClassVar[str] = "nothing at all"
    reason: ClassVar[str] = "Nothing can be taken. Stay."

    def refusals(self, target: VLM, options: Mapping[str, Any]) -> list[str]:
        return [self.reason]

    def write(self, target: VLM, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        raise UsageError(f"Refused: {self.reason}", "Stay.")


class Curt(SoundExporter):
    reason: ClassVar[str] = "No."


class Hasty(SoundExporter):
    """Writes, then refuses."""

    def write(self, target: VLM, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        out.mkdir()
        return super().write(target, out, options)


def test_a_sound_exporter_passes() -> None:
    check_exporter(SoundExporter())


@pytest.mark.parametrize(
    ("exporter", "law"), [(Curt, "refusals_have_a_way_out"), (Hasty, "what_is_refused_is_not_written")]
)
def test_an_exporter_that_breaks_a_law_is_told_by_it(exporter: type[SoundExporter], law: str) -> None:
    with pytest.raises(AssertionError, match=f"^nothing breaks the law {law}: "):
        laws_of_exporter(exporter())[law]()


def test_an_adapter_without_terms_is_told_by_the_law() -> None:
    adapter = next(iter(adapters().values()))
    check_adapter(adapter)
    with pytest.raises(AssertionError, match="breaks the law says_what_it_is: it does not say its licence"):
        check_adapter(replace(adapter, licence=""))


def test_edits_of_another_kind_of_model_are_told_by_the_law() -> None:
    """A method of models that answers whose edit is for dual encoders is refused by every law that uses its mend."""

    class Misplaced(Sound):
        def edit(self) -> AnyEdit:
            return ScaleLogits(2.0)

    with pytest.raises(AssertionError, match="scale_zero_is_the_base: it raised BadParameter"):
        laws_of_method(Misplaced)["scale_zero_is_the_base"]()
