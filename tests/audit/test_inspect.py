"""The door for Inspect: every registered suite is a task, and the model provider asks what an audit asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai.model import get_model
from tests.models import duals

from vlmend import registry
from vlmend.audit.inspect import entry
from vlmend.audit.inspect.tasks import build_task
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.suite import Suite
from vlmend.core.images import noise_image
from vlmend.errors import BadData, UsageError
from vlmend.models.loading.target import open_target
from vlmend.models.vlm import VLM

MEASURED = [plugin for plugin in registry.plugins("suites") if registry.suite(plugin.full).works_on != "data"]


@pytest.fixture(scope="module")
def folder(tiny: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny LLaVA."""
    place = tmp_path_factory.mktemp("tiny")
    tiny.model.save_pretrained(place)
    tiny.processor.save_pretrained(place)
    return place


@pytest.mark.parametrize("name", [plugin.full for plugin in MEASURED])
def test_every_suite_of_models_is_a_task_of_its_short_name(name: str) -> None:
    short = name.rpartition("/")[2]
    suite = registry.suite(name)
    if isinstance(suite, Suite) and not suite.own_rows:
        with pytest.raises(BadData):
            getattr(entry, short)(limit=1)
        return
    task = getattr(entry, short)(limit=1)
    assert task.dataset.name == name
    assert len(task.dataset) >= 1


@pytest.mark.parametrize("name", [n for n in registry.names("suites") if registry.suite(n).works_on == "data"])
def test_a_suite_of_data_sets_says_how_it_is_run(name: str) -> None:
    with pytest.raises(UsageError, match="vlmend audit data:FILE"):
        build_task(name, None, None, None)


def test_inspect_gets_the_replies_that_an_audit_gets(folder: Path, tmp_path: Path) -> None:
    """Ten questions in five conditions, made images included."""
    model = get_model(f"vlmend/{folder}", memoize=False)
    [log] = inspect_eval(
        build_task("safety/alignment_gap", None, 2, 6), model=model, log_dir=str(tmp_path / "logs"), display="none"
    )
    assert log.status == "success"
    assert log.samples is not None
    theirs = {str(sample.id): sample.output.completion for sample in log.samples}
    target = open_target(str(folder))
    audit(target, Plan(("safety/alignment_gap",), limit=2, max_new_tokens=6), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert theirs == {row["id"]: row["reply"] for row in rows}
    assert len(theirs) == 10


def test_a_dual_encoder_is_measured_through_inspect(tmp_path: Path) -> None:
    model, processor = duals.built("clip")
    model.save_pretrained(tmp_path / "clip")
    processor.save_pretrained(tmp_path / "clip")
    task = build_task("robustness/ood", None, 4, None)
    [log] = inspect_eval(task, model=f"vlmend/{tmp_path / 'clip'}", log_dir=str(tmp_path / "logs"), display="none")
    assert log.status == "success"
    assert log.results is not None
    names = {name for score in log.results.scores for name in score.metrics}
    assert {"auroc mcm", "accuracy known"} <= names


def test_a_broken_picture_stays_unscored_through_inspect(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"no image")
    (tmp_path / "d.jsonl").write_text('{"id": "a", "prompt": "hello", "label": "benign", "image": "cut.png"}\n')
    task = build_task("safety/over_refusal", str(tmp_path / "d.jsonl"), None, 4)
    [log] = inspect_eval(task, model=f"vlmend/{folder}", log_dir=str(tmp_path / "logs"), display="none")
    assert log.status == "success"
    told = {str(s.id): (s.metadata or {}).get("problem", "") for s in log.samples or []}
    assert "bad-image" in told["a:original"]
    assert not told["a:query"]


def test_pictures_from_elsewhere_go_to_apis_only_where_that_is_allowed(folder: Path, tmp_path: Path) -> None:
    """Of a picture above the data's folder nothing is asked; with the task's flag, or of a model here, it is."""
    noise_image(16, 0).decode().save(tmp_path / "above.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "d.jsonl").write_text('{"id": "a", "prompt": "hello", "label": "benign", "image": "../above.png"}\n')

    def problems(model: str, **settings: bool) -> list[str]:
        task = build_task("safety/over_refusal", str(data / "d.jsonl"), None, 4, **settings)
        [log] = inspect_eval(task, model=model, log_dir=str(tmp_path / "logs"), display="none")
        assert log.samples is not None
        shown = [sample for sample in log.samples if sample.metadata["condition"] == "original"]
        return [str(sample.metadata.get("problem", "")) for sample in shown]

    (refused,) = problems("mockllm/model")
    assert "outside of the data's folder" in refused
    assert "-T send_outside=true" in refused
    assert problems("mockllm/model", send_outside=True) == [""]
    assert problems(f"vlmend/{folder}") == [""]
