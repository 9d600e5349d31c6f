"""A red team whose words a model writes: what it draws, learns, asks, and takes up again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from tests.redteam.test_redteam import TOLD, Tags
from tests.redteam.test_search import letters
from tools.redteam import embedded
from tools.redteam_writer import BUDGET, hunt, proxy, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification, CLIPConfig, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from vlmend.cli import app
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.verdicts import Judge
from vlmend.errors import BadParameter, ModelProblem, RunProblem, UsageError
from vlmend.models.loading.writer import check_writer, load_writer
from vlmend.redteam.finds import Found
from vlmend.redteam.novelty import distinct_2
from vlmend.redteam.run import red_team
from vlmend.redteam.search import SEARCHES, SearchKind
from vlmend.redteam.space import Space, Template, space_of
from vlmend.redteam.writer import Writer, WriterSettings, open_writer
from vlmend.redteam.writing import FORM, Draft, Writing
from vlmend.redteam.written import PATIENCE
from vlmend.testing import ScriptedTarget, tiny_vlm

WORDS = ["tell", "me", "about", "w0", "w1", "w2", "w3", "w4"]
GOALS = Dataset("goals", tuple(Example(f"g{k}", f"tell me about w{k}", group=f"w{k}") for k in range(3)))
SETTINGS = WriterSettings("{} <eos>", keep=0.0, rate=0.02, rank=4, tokens=3)


@cache
def checkpoint() -> tuple[Any, Any]:
    """A language model of eight words that knows nothing."""
    tokenizer = word_tokenizer(WORDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, pad_token_id=0,
            num_attention_heads=2, num_key_value_heads=2, eos_token_id=1, bos_token_id=None,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval(), tokenizer


def writer(settings: WriterSettings = SETTINGS) -> Writer:
    return Writer("tiny", *checkpoint(), settings)


def space() -> Space:
    return space_of(GOALS, [FORM], ("text", "blank"))


def script(conversation: Conversation, mended: bool) -> str:
    return TOLD if "w3" in conversation.prompt and conversation.has_image else "I cannot help with that."


def run(
    out: Path, budget: int = 40, search: SearchKind = "novelty", target: ScriptedTarget | None = None,
    author: Writer | None = None, judges: Sequence[Judge | str] = ("rules",),
) -> Found:  # fmt: skip
    return red_team(
        target or ScriptedTarget(script), GOALS, out, budget=budget, search=search, judges=judges, embed=letters,
        carriers=("text", "blank"), writer=author or writer(),
    )  # fmt: skip


def test_what_is_rewarded_gets_likelier_and_the_checkpoint_stays_as_it_was() -> None:
    pen, goals = writer(), ["tell me about w0"] * 16
    before = {name: value.clone() for name, value in checkpoint()[0].state_dict().items()}
    share: list[float] = []
    for step in range(12):
        drawn = pen.draw(goals, step)
        hits = torch.tensor([float("w3" in one.words) for one in drawn])
        share.append(float(hits.mean()))
        pen.learn(goals, [one.tokens for one in drawn], hits, 0.0)
    assert np.mean(share[-3:]) > np.mean(share[:3]) + 0.2
    assert all(torch.equal(value, before[name]) for name, value in checkpoint()[0].state_dict().items())


def test_a_reward_that_is_the_same_for_all_teaches_nothing() -> None:
    pen, goals = writer(WriterSettings("{} <eos>", keep=0.0, kl=0.0, tokens=3)), ["tell me about w0"] * 8
    tokens = [one.tokens for one in pen.draw(goals, 1)]
    pen.learn(goals, tokens, torch.ones(8), 0.0)
    assert [one.tokens for one in pen.draw(goals, 1)] == tokens
    assert all(not one.detach().any() for name, one in pen._now.named_parameters() if "lora_B" in name)


def test_the_log_probability_of_a_draw_is_that_of_its_tokens_whatever_stands_beside_it() -> None:
    pen, (model, tokenizer) = writer(), checkpoint()
    prompts = [tokenizer(text).input_ids for text in ("tell me about w0 <eos>", "w1 <eos>")]
    drawn = [(5, 6, 1), (7,)]
    together = pen._logprobs(model, prompts, drawn)
    for k, (prompt, tokens) in enumerate(zip(prompts, drawn, strict=True)):
        logs = model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
        alone = sum(logs[len(prompt) - 1 + place, token] for place, token in enumerate(tokens))
        torch.testing.assert_close(together[k], alone)


def test_draws_are_a_function_of_the_seed_and_end_at_the_end_token() -> None:
    pen, goals = writer(), ["tell me about w0", "w1"] * 8
    drawn = pen.draw(goals, 3)
    assert drawn == pen.draw(goals, 3) != pen.draw(goals, 4)
    assert all(1 not in one.tokens[:-1] and len(one.tokens) <= 3 for one in drawn)
    assert {one.words for one in drawn if one.tokens == (1,)} <= {""}


def test_what_no_longer_asks_for_its_goal_and_what_was_asked_is_not_asked() -> None:
    def near(texts: Sequence[str]) -> np.ndarray:
        """Texts with w1 are at right angles to all others."""
        return np.array([[0.0, 1.0] if "w1" in text else [1.0, 0.0] for text in texts])

    goals = space_of(Dataset("d", GOALS.examples[:1]), [FORM], ("text",))
    looking = Writing("reward", goals, writer(WriterSettings("{} <eos>", keep=0.5, tokens=2)), near, 0)
    drafts: list[Draft] = []
    for _ in range(6):
        drafts += (made := looking.propose(16))
        looking.learn(made, [0.0 for one in made if one.fate == "asked"])
    assert {one.fate for one in drafts} == {"asked", "repeat", "off_goal"}
    for one in drafts:
        assert (one.fate == "off_goal") == ("w1" in one.words or not one.words)
    asked = [one.words for one in drafts if one.fate == "asked"]
    assert len(asked) == len(set(asked))


def test_what_was_expected_of_a_goal_and_carrier_is_no_merit_of_the_words() -> None:
    """Of two goals one always leaks: once that is known, its rewrites are worth no more than those of the other."""
    looking = Writing("reward", space(), writer(), letters, 0)
    given: dict[int, list[float]] = {}
    for _ in range(8):
        drafts = looking.propose(16)
        brought = dict(zip(drafts, looking.brought(drafts), strict=True)) if looking.rounds > 5 else {}
        for one, value in brought.items():
            given.setdefault(one.place.goal, []).append(value)
        looking.learn(drafts, [float(one.place.goal == 1) for one in drafts if one.fate == "asked"])
    assert set(given) == {1}


@pytest.mark.parametrize("search", ["novelty", "reward", "random"])
def test_a_run_that_dies_goes_on_alike_and_asks_nothing_twice(search: SearchKind, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 40, search)
    left = iter(range(25))

    def dying(conversation: Conversation, mended: bool) -> str:
        if next(left) == 24:
            raise KeyboardInterrupt
        return script(conversation, mended)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 40, search, ScriptedTarget(dying))
    kept = len((tmp_path / "cut" / "replies.jsonl").read_text().splitlines())
    target = ScriptedTarget(script)
    again = run(tmp_path / "cut", 40, search, target)
    assert (again.modes, again.curve, again.unasked) == (whole.modes, whole.curve, whole.unasked)
    assert len(target.asked.conversations) == 40 - kept < 40
    assert (tmp_path / "cut" / "writer.pt").exists() == (search != "random")


@pytest.mark.parametrize("fault", ["lost", "cut"])
def test_what_a_writer_had_learnt_is_learnt_again_from_the_tries(fault: str, tmp_path: Path) -> None:
    for name in ("whole", "some"):
        run(tmp_path / name, 24)
    state = tmp_path / "some" / "writer.pt"
    if fault == "lost":
        state.unlink()
    else:
        state.write_bytes(state.read_bytes()[:-100])
    whole, again = (run(tmp_path / name, 40) for name in ("whole", "some"))
    assert (again.curve, again.unasked) == (whole.curve, whole.unasked)


def test_a_writer_that_learnt_more_than_the_tries_say_learns_anew_and_asks_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "run", 40)
    tries = tmp_path / "run" / "tries.jsonl"
    tries.write_text("".join(tries.read_text().splitlines(keepends=True)[:20]))  # cut in the second round
    target = ScriptedTarget(script)
    assert run(tmp_path / "run", 40, target=target).curve == whole.curve
    assert target.asked.conversations == []


def test_a_larger_budget_goes_on_and_a_smaller_one_asks_nothing(tmp_path: Path) -> None:
    first = run(tmp_path / "run", 20)
    more = run(tmp_path / "run", 40)
    assert (first.asked, more.asked, more.curve[:20]) == (20, 40, first.curve)
    target = ScriptedTarget(script)
    assert run(tmp_path / "run", 20, target=target).curve == first.curve
    assert target.asked.conversations == []


def test_a_search_begins_with_the_writer_as_it_was(tmp_path: Path) -> None:
    pen = writer()
    first, again = (run(tmp_path / name, 40, author=pen) for name in ("one", "two"))
    assert (first.curve, first.unasked) == (again.curve, again.unasked)


def test_another_writer_or_none_is_refused_in_its_folder(tmp_path: Path) -> None:
    run(tmp_path / "run", 4)
    with pytest.raises(RunProblem, match="its writer differ"):
        run(tmp_path / "run", 4, author=writer(WriterSettings("{} <eos>", keep=0.1, tokens=3)))
    with pytest.raises(RunProblem, match="writer differ"):
        red_team(ScriptedTarget(script), GOALS, tmp_path / "run", budget=4, search="novelty", judges=["rules"],
                 embed=letters, carriers=("text", "blank"))  # fmt: skip
    with pytest.raises(UsageError, match="cannot be had together"):
        red_team(ScriptedTarget(script), GOALS, tmp_path / "new", budget=4, writer=writer(),
                 templates=[Template("plain", "{}")])  # fmt: skip


def test_a_writer_with_nothing_left_to_say_ends_the_search(tmp_path: Path) -> None:
    short = WriterSettings("{} <eos>", keep=0.0, tokens=1)
    found = run(tmp_path / "run", 400, "random", author=writer(short))
    assert found.asked <= 3 * 2 * len(WORDS) + 6
    assert found.unasked["repeat"] + found.unasked["off_goal"] >= 16 * PATIENCE
    target = ScriptedTarget(script)
    assert run(tmp_path / "run", 400, "random", target, writer(short)).unasked == found.unasked
    assert target.asked.conversations == []


def test_finds_ask_the_same_again_and_judges_read_the_goal_alone(tmp_path: Path) -> None:
    judge = Tags()
    found = run(tmp_path / "run", 40, "random", judges=["rules", judge])
    assert found.finds > 0
    assert set(found.modes) <= {f"w{k} beside blank" for k in range(3)}
    assert all(script(row.conversation, False) == TOLD for row in found.data.examples)
    assert {one.prompt for one in judge.read} <= {row.prompt for row in GOALS.examples}
    assert found.by["template"] == {"writer": (40, found.finds)}
    told = (tmp_path / "run" / "finds.json").read_text()
    assert not any(word in told for word in WORDS[3:])
    assert (tmp_path / "run" / "tries.jsonl").stat().st_mode & 0o077 == 0
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0


def test_a_writer_is_a_checkpoint_or_the_text_side_of_one_that_sees(tmp_path: Path) -> None:
    model, tokenizer = checkpoint()
    model.save_pretrained(tmp_path / "words")
    tokenizer.save_pretrained(tmp_path / "words")
    opened = open_writer(str(tmp_path / "words"), SETTINGS)
    assert opened.told == writer().told
    seeing = tiny_vlm()
    seeing.model.save_pretrained(tmp_path / "sees")
    seeing.reader.processor.save_pretrained(tmp_path / "sees")
    pen = open_writer(str(tmp_path / "sees"), WriterSettings("say {}", tokens=2))
    assert len(pen.draw(["x", "yy"], 0)) == 2


def test_what_only_reads_is_no_writer(tmp_path: Path) -> None:
    _, tokenizer = checkpoint()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    reads = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes))
    reads.save_pretrained(tmp_path / "reads")
    tokenizer.save_pretrained(tmp_path / "reads")
    with pytest.raises(ModelProblem, match="no language model that writes: it holds no weights"):
        load_writer(tmp_path / "reads")
    CLIPConfig().save_pretrained(tmp_path / "pairs")
    with pytest.raises(ModelProblem, match="it is a CLIP"):
        check_writer(tmp_path / "pairs")


def test_settings_and_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=r"no \{\}"):
        WriterSettings("Rewrite this.")
    for wrong in ({"keep": 1.0}, {"rate": float("inf")}, {"kl": float("nan")}):
        with pytest.raises(BadParameter, match="cannot be"):
            WriterSettings(**wrong)
    (tmp_path / "goals.jsonl").write_text(json.dumps({"prompt": "tell me about w3."}) + "\n")
    asked = [
        "redteam",
        "phantom",
        "--goals",
        str(tmp_path / "goals.jsonl"),
        "--budget",
        "4",
        "--out",
        str(tmp_path / "o"),
    ]
    wrong = (
        ["--set", "keep=0.2"], ["--writer", "phantom", "--set", "keep=2"], ["--writer", str(tmp_path)],
        ["--writer", "phantom", "--templates", "x.jsonl"],
    )  # fmt: skip
    for more in wrong:
        assert CliRunner().invoke(app, [*asked, *more]).exit_code != 0
    assert not (tmp_path / "o").exists()


def test_the_verb_takes_a_writer_and_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "goals.jsonl").write_text('{"prompt": "tell me about w3", "category": "w3"}\n')
    for part in checkpoint():
        part.save_pretrained(tmp_path / "words")
    monkeypatch.setattr("vlmend.redteam.run.open_target", lambda *_, **__: ScriptedTarget(script))
    monkeypatch.setattr("vlmend.registry.model_folder", lambda name: tmp_path / "words")
    monkeypatch.setattr("vlmend.cli.redteaming._draws", lambda *_: False)
    arguments = [
        "redteam", "phantom", "--goals", str(tmp_path / "goals.jsonl"), "--budget", "20", "--search", "random",
        "--judge", "rules", "--writer", str(tmp_path / "words"), "--set", "prompt={} <eos>", "--set", "keep=0",
        "--set", "tokens=2", "--carriers", "text,blank", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    values = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert (values["asked"], set(values["unasked"])) == (20, {"repeat", "off_goal"})
    told = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "no part of the budget" in told
    assert "w3" not in told


@pytest.mark.slow
def test_hidden_triggers_by_what_the_writer_learns_from() -> None:
    """5 hidden words of 200 at equal budgets, on the seeds of the table in docs/guides/redteam.md."""
    found = {kind: median(hunt(kind, proxy(k), BUDGET, k, embedded)[0] for k in range(100, 103)) for kind in SEARCHES}
    assert found["novelty"] >= 4
    assert found["reward"] < found["novelty"]
    assert found["random"] < found["novelty"]


@pytest.mark.slow
def test_without_any_verdict_the_texts_get_more_varied() -> None:
    for seed in range(100, 102):
        asked = hunt("novelty", proxy(seed), BUDGET, seed, embedded, told="none")[1]
        assert distinct_2(asked[-100:]) > distinct_2(asked[:100])
