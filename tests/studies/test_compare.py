"""`compare` on targets of every kind: a dual encoder, a model of which there are replies alone, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmend
from vlmend.audit.judges.rules import RuleJudge
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.mend import Mend
from vlmend.errors import NeedsAccess, UsageError
from vlmend.methods.fairness.text_projection import TextProjection
from vlmend.pictures.galleries import people_gallery
from vlmend.printing import show_defences
from vlmend.studies.defences import fitting_defences
from vlmend.testing import ScriptedTarget, tiny_clip

SUITE = "fairness/retrieval_skew"


class RepliesAlone:
    """A scripted model as an API shows it: nothing can be had of it but replies."""

    def __init__(self, inner: ScriptedTarget) -> None:
        self.inner = inner
        self.kind, self.name, self.model_digest = inner.kind, "api:toy", inner.model_digest
        self.identity, self.image_side, self.mends = inner.identity, inner.image_side, inner.mends

    @property
    def id(self) -> str:
        return "+".join([self.name, *(mend.digest[:8] for mend in self.mends)])

    @property
    def bare(self) -> RepliesAlone:
        return RepliesAlone(self.inner.bare)

    def with_mend(self, mend: Mend) -> RepliesAlone:
        return RepliesAlone(self.inner.with_mend(mend))

    def generate(self, batch: list[Conversation], sampling: Sampling) -> list[Reply]:
        return self.inner.generate(batch, sampling)


@pytest.fixture
def api() -> Any:
    """Answers whatever it is asked, and once mended refuses."""
    return RepliesAlone(
        ScriptedTarget(lambda c, mended: "I'm sorry, I can't." if mended else "Here is an answer: yes.")
    )


def test_mends_of_a_dual_encoder_are_audited_side_by_side(tmp_path: Path) -> None:
    clip = tiny_clip()
    given = {"mine": TextProjection().fit(clip, TextProjection().builtin(), seed=0)}
    told = vlmend.compare(clip, "text_projection,pbm", tmp_path, mends=given, suites=SUITE, limit=4)
    none, *rows = told["rows"]
    assert [row["name"] for row in told["rows"]] == ["none", "text_projection", "pbm", "mine"]
    assert none["tests"] == []
    assert all(row["tests"] for row in rows)
    values = [[one["value"] for one in row["measures"]] for row in told["rows"]]
    assert values[1] == values[3] != values[0]  # the same mend, fitted here and given
    assert json.loads((tmp_path / "defences.json").read_text())["model"] == clip.name
    page = (tmp_path / "defences.html").read_text()
    assert page.count("on the same samples</h2>") == 3
    assert "fairness/retrieval_skew: abs bias at 10" in page


def test_a_method_that_cannot_be_fitted_loses_its_row_alone(tmp_path: Path) -> None:
    """The gallery has people and no known things, which ood_calibration is fitted on."""
    told = vlmend.compare(
        tiny_clip(), "ood_calibration", tmp_path, data=people_gallery("anchor"), suites=SUITE, limit=2
    )
    assert [row["name"] for row in told["rows"]] == ["none"]
    assert list(told["left_out"]) == ["ood_calibration"]


def test_of_a_model_behind_an_api_the_mends_of_words_are_compared(
    api: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = vlmend.compare(api, "safety_prompt", tmp_path, judges=[RuleJudge()], limit=2)
    unsafe = {row["name"]: row["unsafe"]["value"] for row in told["rows"]}
    assert unsafe == {"none": 1.0, "safety_prompt": 0.0}
    show_defences(told)
    assert "nan" not in capsys.readouterr().out
    assert "not measured" in (tmp_path / "defences.html").read_text()


def test_all_means_what_the_target_lets_be_done(api: Any) -> None:
    assert {one.name for one in fitting_defences(api, None)} == {
        "safety_prompt", "safety_reasoning", "ecso", "fair_instructions",
    }  # fmt: skip
    local = {one.name for one in fitting_defences(ScriptedTarget(lambda *_: ""), None)}
    assert "cmrm" in local
    assert not {"dpo", "villa", "in_context_examples"} & local
    assert "pbm" in {one.name for one in fitting_defences(tiny_clip(), None)}


def test_what_does_not_fit_the_target_is_refused_before_any_work(api: Any, tmp_path: Path) -> None:
    with pytest.raises(NeedsAccess, match="cmrm needs the states of api:toy"):
        vlmend.compare(api, "cmrm", tmp_path / "run")
    with pytest.raises(UsageError, match="cmrm works on a model that answers"):
        vlmend.compare(tiny_clip(), "cmrm", tmp_path / "run")
    with pytest.raises(UsageError, match="nobody judges them"):
        vlmend.compare(tiny_clip(), "pbm", tmp_path / "run", judges=["rules"])
    with pytest.raises(UsageError, match="suites of its own"):
        vlmend.compare(api, "safety_prompt", tmp_path / "run", suites="safety")
    assert not (tmp_path / "run").exists()
