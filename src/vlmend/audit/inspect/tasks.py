"""Turns a suite into an Inspect task, and the journal of its run into answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from inspect_ai import Epochs, Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from vlmend import registry
from vlmend.audit.inspect.provider import VlmendAPI
from vlmend.audit.journal import Journal
from vlmend.audit.plan import Plan
from vlmend.audit.suite import Answer, Question, pixels_of
from vlmend.core.contracts import GenerativeTarget
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.examples import Dataset
from vlmend.data.layouts import PLUS, read_data
from vlmend.errors import SampleError
from vlmend.models.judging.sentences import encoder

__all__ = ["answers_of", "build_task", "data_of", "questions_of"]

OTHER_SIDE = 336
"""Side of made images for models that do not tell theirs (API models)."""


def build_task(
    name: str, data: str | None, limit: int | None, max_new_tokens: int | None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0,
) -> Task:  # fmt: skip
    """The Inspect task of a suite, on the user's data or on the built-in data."""
    suite = registry.suite(name)
    return Task(
        dataset=MemoryDataset([_sample(q) for q in questions_of(name, data, limit).values()], name=suite.name),
        solver=put(name, data, limit, seed),
        scorer=verdict(name, data, limit),
        config=GenerateConfig(max_tokens=max_new_tokens or suite.max_new_tokens, temperature=temperature),
        epochs=Epochs(epochs, "mode"),
        metadata={"suite": suite.name, "judge": suite.judge_id},
    )


def questions_of(name: str, data: str | None, limit: int | None) -> Mapping[str, Question]:
    """The questions of a suite by id. Inspect writes solver arguments down, so they are plain."""
    files = [Path(part) for part in (data or "").replace(PLUS, ":").split(":") if part and Path(part).exists()]
    return _questions(name, data, limit, max((file.stat().st_mtime_ns for file in files), default=0))


@lru_cache(maxsize=8)
def _questions(name: str, data: str | None, limit: int | None, changed: int) -> Mapping[str, Question]:
    """As `questions_of`; a data file that changed is read again."""
    dataset = None if data is None else data_of(data)
    return {question.id: question for question in registry.suite(name).questions(dataset, limit)}


def data_of(text: str) -> Dataset:
    """The user's data, with the sentence encoder at hand for sets that pair requests with captions."""
    return read_data(text, encode=lambda texts: encoder()(texts))


def answers_of(name: str, plan: Plan, target: GenerativeTarget, journal: Journal) -> list[Answer]:
    """What came of every question of a suite, sorted by id, from the journal.

    Inspect's log holds the same; it is for people, and reading it back takes longer than the engine's
    other work together.
    """
    suite = registry.suite(name)
    found: list[Answer] = []
    for question in questions_of(name, plan.data, plan.limit).values():
        conversation = Conversation.ask(question.prompt, pixels_of(question, target.image_side))
        for epoch in range(plan.epochs):
            suffix = f"#{epoch + 1}" if plan.epochs > 1 else ""
            how = Sampling(plan.max_new_tokens or suite.max_new_tokens, plan.temperature, plan.seed + epoch)
            reply = _reply(journal, target, conversation, how)
            found.append(suite.answer(question, reply, f"{question.id}{suffix}"))
    return sorted(found, key=lambda answer: answer.id)


def _reply(
    journal: Journal, target: GenerativeTarget, conversation: Conversation, sampling: Sampling
) -> Reply | SampleError:
    """The reply, or why the request could not be put to the model."""
    try:
        reply = journal.get(target.id, conversation, sampling)
        noted = journal.problem(target.id, conversation, sampling)
        for image in conversation.images if reply is None else ():
            image.decode()
    except SampleError as problem:
        return problem
    return reply or noted or SampleError("The request has no reply in the journal.", "Run the same command again.")


@solver
def put(name: str, data: str | None = None, limit: int | None = None, seed: int = 0) -> Solver:
    """Put the words and the image of a question to the model; a bad sample is kept as such.

    Draws differ from epoch to epoch; greedy replies do not depend on the seed.
    """
    questions = questions_of(name, data, limit)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        question = questions[str(state.sample_id)]
        try:
            state.messages = [ChatMessageUser(content=_content(question))]
            return await generate(state, seed=seed + state.epoch - 1)
        except SampleError as problem:
            state.metadata["error"] = f"{problem.code}: {problem}"
            state.output = ModelOutput.from_content(str(state.model), "")
            return state

    return solve


@metric
def shares() -> Metric:
    """The share of each verdict among all samples, unscored included."""

    def compute(scores: list[SampleScore]) -> dict[str, float]:
        labels = [str((score.score.metadata or {}).get("label", "unscored")) for score in scores]
        return {label: labels.count(label) / len(labels) for label in sorted(set(labels))}

    return compute


@scorer(metrics=[shares()])
def verdict(name: str, data: str | None = None, limit: int | None = None) -> Scorer:
    """The suite's verdict as the score's value; a reply that cannot be judged stays unscored."""
    suite, questions = registry.suite(name), questions_of(name, data, limit)

    async def score(state: TaskState, target: Target) -> Score:
        error = state.metadata.get("error")
        reply = state.output.completion
        found = suite.verdict(questions[str(state.sample_id)], reply)
        label, reason = ("unscored", str(error)) if error else (found.label, found.reason)
        metadata = {"label": label, "judge": suite.judge_id}
        if label == "unscored":
            return Score.unscored(answer=reply, explanation=reason, metadata=metadata)
        return Score(value=label, answer=reply, explanation=reason, metadata=metadata)

    return score


def _sample(question: Question) -> Sample:
    return Sample(
        id=question.id,
        input=question.prompt,
        target=list(question.target),
        metadata={"condition": question.condition, "group": question.group, "category": question.category},
    )


def _content(question: Question) -> list[Content]:
    words = ContentText(text=question.prompt)
    api = get_model().api
    side = api.local.target.image_side if isinstance(api, VlmendAPI) else OTHER_SIDE
    image = pixels_of(question, side)
    return [words] if image is None else [ContentImage(image=image.to_data_uri()), words]
