"""Harmful requests in words: JailbreakLLMs, HarmBench, AdvBench, StrongREJECT, JailbreakBench, CatQA, RedTeam-2K.

Each `convert` reads the authors' fields and those of plain JSONL (id, prompt, category).
"""

from __future__ import annotations

from vlmend.core.examples import Label
from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.hub import HubFiles
from vlmend.data.rows import Row, leaves, maybe, text

__all__ = ["ADAPTERS"]


def _jailbreak_llms(row: Row, place: Place) -> list[Draft]:
    """Columns content_policy_name, question. Ids count the rows, as they did before there were adapters."""
    name = f"jbl-{place.number - 1:04d}"
    return [Draft(text(row, "question", "prompt"), "harmful", name, maybe(row, "content_policy_name", "category"))]


def _harmbench(row: Row, place: Place) -> list[Draft]:
    """Columns Behavior, BehaviorID, SemanticCategory, ContextString; a context comes before its request."""
    words, context = text(row, "Behavior", "prompt"), maybe(row, "ContextString", "context")
    prompt = f"{context}\n\n---\n\n{words}" if context else words
    return [Draft(prompt, "harmful", text(row, "BehaviorID", "id"), maybe(row, "SemanticCategory", "category"))]


def _advbench(row: Row, place: Place) -> list[Draft]:
    """Columns goal, target."""
    return [Draft(text(row, "goal", "prompt"), "harmful", maybe(row, "id"))]


def _strongreject(row: Row, place: Place) -> list[Draft]:
    """Columns category, source, forbidden_prompt."""
    return [Draft(text(row, "forbidden_prompt", "prompt"), "harmful", maybe(row, "id"), maybe(row, "category"))]


def _jailbreakbench(row: Row, place: Place) -> list[Draft]:
    """Columns Index, Goal, Category; the file's name tells the benign half."""
    label: Label = "benign" if "benign" in place.file.stem else "harmful"
    name = maybe(row, "id") or f"{label}-{text(row, 'Index', 'id')}"
    return [Draft(text(row, "Goal", "prompt"), label, name, maybe(row, "Category", "category"))]


def _catqa(row: Row, place: Place) -> list[Draft]:
    """Fields Category, Subcategory, Question."""
    prompt, group = text(row, "Question", "prompt"), maybe(row, "Category", "category")
    return [Draft(prompt, "harmful", maybe(row, "id"), group)]


def _redteam_2k(row: Row, place: Place) -> list[Draft]:
    """Columns id, question, policy, from."""
    return [Draft(text(row, "question", "prompt"), "harmful", text(row, "id"), maybe(row, "policy", "category"))]


ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="jailbreak_llms",
        kind="harmful requests",
        title="JailbreakLLMs, forbidden questions",
        paper='Shen et al., "Do Anything Now", CCS 2024, arXiv 2308.03825',
        repository="https://github.com/verazuo/jailbreak_llms",
        licence="MIT",
        harmful=390,
        files=("forbidden_question_set.csv", "forbidden_questions.jsonl"),
        convert=_jailbreak_llms,
        how="Take data/forbidden_question_set.csv from its repository.",
        pictures="paired",
        caution="legal, financial, health and government questions are not plainly harmful: read it by scenario",
        hub=HubFiles("TrustAIRLab/forbidden_question_set", ("forbidden_question_set.csv",)),
    ),
    Adapter(
        name="harmbench",
        kind="harmful requests",
        title="HarmBench, text behaviours",
        paper="Mazeika et al., HarmBench, ICML 2024, arXiv 2402.04249",
        repository="https://github.com/centerforaisafety/HarmBench",
        licence="MIT",
        harmful=400,
        files=("harmbench_behaviors_text_all.csv", "text_behaviors.jsonl"),
        convert=_harmbench,
        how="Take data/behavior_datasets/harmbench_behaviors_text_all.csv from its repository.",
    ),
    Adapter(
        name="advbench",
        kind="harmful requests",
        title="AdvBench, harmful behaviours",
        paper="Zou et al., Universal and Transferable Adversarial Attacks, arXiv 2307.15043",
        repository="https://github.com/llm-attacks/llm-attacks",
        licence="MIT",
        harmful=520,
        files=("harmful_behaviors.csv", "harmful_behaviors.jsonl"),
        convert=_advbench,
        how="Take data/advbench/harmful_behaviors.csv from its repository.",
    ),
    Adapter(
        name="strongreject",
        kind="harmful requests",
        title="StrongREJECT, forbidden prompts",
        paper="Souly et al., A StrongREJECT for Empty Jailbreaks, NeurIPS 2024, arXiv 2402.10260",
        repository="https://github.com/alexandrasouly/strongreject",
        licence="MIT",
        harmful=313,
        files=("strongreject_dataset.csv", "prompts.jsonl"),
        convert=_strongreject,
        how="Take strongreject_dataset/strongreject_dataset.csv from its repository.",
    ),
    Adapter(
        name="jailbreakbench",
        kind="harmful requests",
        title="JailbreakBench, harmful and benign behaviours",
        paper="Chao et al., JailbreakBench, NeurIPS 2024, arXiv 2404.01318",
        repository="https://github.com/JailbreakBench/jailbreakbench",
        licence="MIT",
        harmful=100,
        benign=100,
        files=(
            "harmful.jsonl",
            "benign.jsonl",
            "harmful-behaviors.csv",
            "benign-behaviors.csv",
            "data/*-behaviors.csv",
        ),
        convert=_jailbreakbench,
        how="Take data/harmful-behaviors.csv and data/benign-behaviors.csv of JBB-Behaviors and pass their folder.",
        hub=HubFiles("JailbreakBench/JBB-Behaviors", ("data/harmful-behaviors.csv", "data/benign-behaviors.csv")),
    ),
    Adapter(
        name="catqa",
        kind="harmful requests",
        title="CatQA (English)",
        paper="Bhardwaj et al., Language Models are Homer Simpson!, ACL 2024, arXiv 2402.11746",
        repository="https://github.com/declare-lab/red-instruct",
        licence="Apache-2.0",
        harmful=550,
        files=("catqa_english.json", "english.jsonl", "data/catqa_english.json"),
        convert=_catqa,
        how="Take harmful_questions/catqa_english.json from its repository.",
        hub=HubFiles("declare-lab/CategoricalHarmfulQA", ("data/catqa_english.json",)),
        unfold=leaves("category", "subcategory"),
    ),
    Adapter(
        name="redteam_2k",
        kind="harmful requests",
        title="RedTeam-2K of JailBreakV-28K",
        paper="Luo et al., JailBreakV, COLM 2024, arXiv 2404.03027",
        repository="https://huggingface.co/datasets/JailbreakV-28K/JailBreakV-28k",
        licence="MIT (BeaverTails rows CC BY-NC 4.0)",
        harmful=2000,
        files=("RedTeam_2K.csv", "questions.jsonl"),
        convert=_redteam_2k,
        how="Take RedTeam_2K.csv from its page on the hub.",
        hub=HubFiles("JailbreakV-28K/JailBreakV-28k", ("RedTeam_2K.csv",)),
    ),
)
