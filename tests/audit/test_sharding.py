"""An audit in parts is the audit, sample by sample; nothing is asked twice, whoever stops and however it is divided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlmend.audit.plan import Plan
from vlmend.audit.preflight import plan_size
from vlmend.audit.run import audit
from vlmend.audit.sharding import Shard, ask_shard, shard_folders, wait_until_free
from vlmend.audit.suite import MadeImage, Question
from vlmend.cli import app
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.files import held
from vlmend.core.images import Image, noise_image
from vlmend.core.samples import read_samples
from vlmend.errors import BadParameter, RunProblem, UsageError
from vlmend.testing import ScriptedTarget, tiny_clip

BROKEN = Image(b"no picture", "cut.png")
ROWS = [
    Example(f"row {k}", f"request {k % 10}", "harmful" if k % 2 else "benign", image=BROKEN if k == 7 else None)
    for k in range(12)
]
PLAN = Plan(("safety/alignment_gap", "safety/over_refusal"), Dataset("mine", tuple(ROWS), "none"), max_new_tokens=4)
PARTS = [Shard(k, 3) for k in (1, 2, 3)]


def echo(conversation: Conversation, mended: bool) -> str:
    return f"I cannot {conversation.prompt}"


def asked_by(target: ScriptedTarget) -> Counter[str]:
    return Counter(one.digest for one in target.asked.conversations)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    out, target = tmp_path_factory.mktemp("whole"), ScriptedTarget(echo)
    audit(target, PLAN, out, judges=())
    return out, asked_by(target)


def same(out: Path, whole: Path) -> None:
    assert read_samples(out) == read_samples(whole)
    ours, theirs = (json.loads((place / "scorecard.json").read_text()) for place in (out, whole))
    assert ours["rows"] == theirs["rows"]


def test_shards_and_their_audit_ask_what_the_audit_asks_and_give_its_samples(
    whole: tuple[Path, Counter[str]], tmp_path: Path
) -> None:
    folder, wanted = whole
    targets = [ScriptedTarget(echo) for _ in PARTS]
    counts = [ask_shard(one, PLAN, tmp_path, shard) for one, shard in zip(targets, PARTS, strict=True)]
    assert min(counts) > 0
    assert sum(counts) == len(read_samples(folder))
    assert sum(map(asked_by, targets), Counter[str]()) == wanted
    assert set(wanted.values()) == {1}
    last = ScriptedTarget(echo)
    lines: list[str] = []
    audit(last, PLAN, tmp_path, judges=(), note=lines.append)
    assert not asked_by(last)
    assert f"{wanted.total()} replies are there from shards" in lines
    same(tmp_path, folder)


def test_a_run_that_is_divided_anew_asks_only_what_no_shard_has(
    whole: tuple[Path, Counter[str]], tmp_path: Path
) -> None:
    targets = [ScriptedTarget(echo) for _ in range(4)]
    for target, shard in zip(targets, (Shard(1, 3), Shard(1, 2), Shard(2, 2)), strict=False):
        ask_shard(target, PLAN, tmp_path, shard)
    audit(targets[-1], PLAN, tmp_path, judges=())
    assert sum(map(asked_by, targets), Counter[str]()) == whole[1]
    same(tmp_path, whole[0])


def test_what_shards_cost_is_in_the_costs_of_the_run(tmp_path: Path) -> None:
    ask_shard(ScriptedTarget(echo), PLAN, tmp_path, Shard(1, 1))
    file = tmp_path / "shards" / "1-of-1" / "replies.jsonl"
    spent = sum(json.loads(line)["seconds"] for line in file.read_text().splitlines())
    audit(ScriptedTarget(echo), PLAN, tmp_path, judges=())
    assert json.loads((tmp_path / "cost.json").read_text())["model_seconds"] >= round(spent, 3)


def test_parts_that_are_missing_or_unfinished_are_named_and_asked_by_the_audit(
    whole: tuple[Path, Counter[str]], tmp_path: Path
) -> None:
    def stopped(step: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    targets = [ScriptedTarget(echo) for _ in range(3)]
    ask_shard(targets[0], PLAN, tmp_path, PARTS[0])
    with pytest.raises(KeyboardInterrupt):
        ask_shard(targets[1], PLAN, tmp_path, PARTS[1], progress=stopped)
    lines: list[str] = []
    audit(targets[2], PLAN, tmp_path, judges=(), note=lines.append)
    own = asked_by(targets[2]).total()
    told = f"have no folder: 3/3; parts that are unfinished: 2/3. Because of that this command asks {own} requests"
    assert sum(told in line for line in lines) == 1
    assert sum(map(asked_by, targets), Counter[str]()) == whole[1]
    lines.clear()
    audit(ScriptedTarget(echo), PLAN, tmp_path, judges=(), note=lines.append)
    assert not any("unfinished" in line for line in lines)


def test_of_two_divisions_the_parts_of_the_one_of_more_parts_are_named(tmp_path: Path) -> None:
    for shard in (Shard(1, 3), Shard(1, 4), Shard(3, 4), Shard(4, 4)):
        ask_shard(ScriptedTarget(echo), PLAN, tmp_path, shard)
    lines: list[str] = []
    audit(ScriptedTarget(echo), PLAN, tmp_path, judges=(), note=lines.append)
    assert [line.partition(".")[0] for line in lines if "folder" in line] == ["parts that have no folder: 2/4"]


def test_a_part_asks_nothing_that_the_run_folder_has_and_says_so(
    whole: tuple[Path, Counter[str]], tmp_path: Path
) -> None:
    audit(ScriptedTarget(echo), PLAN, tmp_path, judges=())
    target = ScriptedTarget(echo)
    lines: list[str] = []
    ask_shard(target, PLAN, tmp_path, Shard(1, 1), note=lines.append)
    assert not asked_by(target)
    assert lines == [f"0 requests were asked; {whole[1].total()} replies were there before"]


def test_nobody_asks_what_a_shard_is_asking(tmp_path: Path) -> None:
    ask_shard(ScriptedTarget(echo), PLAN, tmp_path, Shard(1, 2))
    (folder,) = shard_folders(tmp_path)
    attempts: list[Callable[[], object]] = [
        lambda: audit(ScriptedTarget(echo), PLAN, tmp_path, judges=()),
        lambda: ask_shard(ScriptedTarget(echo), PLAN, tmp_path, Shard(1, 2)),
        lambda: wait_until_free(tmp_path, 0.0),
    ]
    with held(folder):
        for attempt in attempts:
            with pytest.raises(RunProblem, match="Another process"):
                attempt()
    wait_until_free(tmp_path, 0.0)


def test_shards_of_another_run_are_refused(tmp_path: Path) -> None:
    ask_shard(ScriptedTarget(echo), PLAN, tmp_path, Shard(1, 2))
    with pytest.raises(RunProblem, match="holds another run: seed 0 -> 1"):
        audit(ScriptedTarget(echo), replace(PLAN, seed=1), tmp_path, judges=())


def test_only_what_asks_a_model_is_shared_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to share out"):
        ask_shard(tiny_clip(), Plan(("robustness/ood",)), tmp_path, Shard(1, 2))


def test_questions_of_one_picture_and_words_go_together_and_pictures_part_them() -> None:
    def place(image: Image | MadeImage | None, category: str = "") -> int:
        question = Question("id", "What is this?", "original", "ordinary", category, image)
        return next(k for k in range(1, 1001) if Shard(k, 1000).holds(question))

    pictures = [noise_image(8, k) for k in range(3)]
    assert [place(one) for one in pictures] == [place(one, "else") for one in pictures]
    assert len({place(one) for one in (*pictures, "blank", "noise", None)}) == 6


def test_what_has_no_meaning_beside_a_part_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        found = CliRunner().invoke(app, ["audit", "phantom", "--out", str(tmp_path / "run"), *options])
        assert isinstance(found.exception, BadParameter)
        assert "loading" not in found.output
        return str(found.exception)

    gate = ["--gate", "safety.unsafe_rate[original].high <= 0.1"]
    files = ["--junit", "a.xml", "--markdown", "a.md"]
    assert "nothing for --gate, --json" in refused("--shard", "1/2", *gate, "--json")
    assert "nothing for --junit, --markdown, --all" in refused("--shard", "1/2", *files, "--all")
    assert "do not go together" in refused("--shard", "1/2", "--ray", "local")
    assert "without --ray" in refused("--workers", "2")
    for text in ("3/2", "x", ""):
        assert "no share of an audit" in refused("--shard", text)
    assert not (tmp_path / "run").exists()


def test_the_plan_of_a_part_is_that_of_the_part(tmp_path: Path) -> None:
    sizes = [plan_size("m", PLAN, tmp_path, "chat", shard=shard).suites for shard in PARTS]
    asked = [ask_shard(ScriptedTarget(echo), PLAN, tmp_path, shard) for shard in PARTS]
    assert [sum(one.requests for one in suites) for suites in sizes] == asked
    kept = plan_size("m", PLAN, tmp_path, "chat", shard=PARTS[0]).kept
    assert 0 < kept <= asked[0]
    with pytest.raises(UsageError, match="nothing to share out"):
        plan_size("m", Plan(), tmp_path, "dual", shard=PARTS[0])


def test_shares_are_counted_from_one() -> None:
    assert Shard.parse("2/4") == Shard(2, 4)
    for text in ("0/4", "5/4", "1", "a/b", "1/0"):
        with pytest.raises(BadParameter, match="no share"):
            Shard.parse(text)
