"""Turns any suite into an Inspect task, for `inspect eval vlmend/SUITE --model vlmend/NAME`.

Every sample carries what it takes to ask and to mark it, so the task depends on nothing that the process remembers.
`vlmend audit` goes another way (`audit.run`); the questions and the verdicts are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from inspect_ai import Epochs, Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
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
from vlmend.audit.asking import read
from vlmend.audit.inspect.provider import VlmendAPI
from vlmend.audit.suite import Question, Suite
from vlmend.core.contracts import SampleSuite
from vlmend.core.conversation import Turn
from vlmend.core.images import Image
from vlmend.core.targets import check_access
from vlmend.errors import SampleError, UsageError
from vlmend.models.api.target import ApiTarget

__all__ = ["build_task"]

OTHER_SIDE = 336
"""Side of made images for models that do not tell theirs (API models)."""

MARK = "label"


def build_task(
    name: str, data: str | None, limit: int | None, max_new_tokens: int | None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0, send_outside: bool = False,
) -> Task:  # fmt: skip
    """The Inspect task of a suite, on the user's data or on the built-in data.

    Pictures that lie outside of their data's folder go to models behind an API only with `send_outside`.

    Raises:
        UsageError: The suite measures a data set, for which Inspect has no model.
    """
    suite = registry.suite(name)
    if isinstance(suite, Suite):
        questions = suite.questions(read(data), limit)
        return Task(
            dataset=MemoryDataset([_sample(question) for question in questions], name=suite.name),
            solver=put(seed, send_outside),
            scorer=verdict(suite.name),
            config=GenerateConfig(max_tokens=max_new_tokens or suite.max_new_tokens, temperature=temperature),
            epochs=Epochs(epochs, "mode"),
            metadata={"suite": suite.name, "judge": suite.judge_id},
        )
    if suite.works_on == "data":
        raise UsageError(f"{suite.name} measures a data set.", f"Run: vlmend audit data:FILE --suite {suite.name}.")
    return Task(
        dataset=MemoryDataset([Sample(id=suite.name, input=suite.about)], name=suite.name),
        solver=measure(suite.name, data, limit, seed),
        scorer=measures(),
        metadata={"suite": suite.name},
    )


@solver
def put(seed: int = 0, send_outside: bool = False) -> Solver:
    """Put a question to the model, with made images at its size; a bad sample is kept as such.

    Draws differ from epoch to epoch; greedy replies do not depend on the seed.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        try:
            if state.metadata["made"]:
                state.messages[-1] = _made(_question(state, state.target))
            if state.metadata["outside"] and not (send_outside or _is_here()):
                state.metadata["problem"] = state.metadata["outside"]
            if "problem" not in state.metadata:
                return await generate(state, seed=seed + state.epoch - 1)
        except SampleError as problem:
            state.metadata["problem"] = f"{problem.code}: {problem}"
        state.output = ModelOutput.from_content(str(state.model), "")
        return state

    return solve


@metric
def shares() -> Metric:
    """The share of each verdict among all samples, unscored included."""

    def compute(scores: list[SampleScore]) -> dict[str, float]:
        labels = [str((score.score.metadata or {}).get(MARK, "unscored")) for score in scores]
        return {label: labels.count(label) / len(labels) for label in sorted(set(labels))}

    return compute


@scorer(metrics=[shares()])
def verdict(name: str) -> Scorer:
    """The suite's verdict as the score's value; a reply that cannot be judged stays unscored."""
    suite = cast("Suite", registry.suite(name))

    async def score(state: TaskState, target: Target) -> Score:
        error, reply = state.metadata.get("problem"), state.output.completion
        found = suite.verdict(_question(state, target), reply)
        label, reason = ("unscored", str(error)) if error else (found.label, found.reason)
        told = {MARK: label, "judge": suite.judge_id}
        if label == "unscored":
            return Score.unscored(answer=reply, explanation=reason, metadata=told)
        return Score(value=label, answer=reply, explanation=reason, metadata=told)

    return score


@solver
def measure(name: str, data: str | None, limit: int | None, seed: int) -> Solver:
    """Measure the model that Inspect names, in one sample; its measures are the sample's metadata."""
    suite = cast("SampleSuite[Any]", registry.suite(name))

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        api = get_model().api
        if not isinstance(api, VlmendAPI):
            raise UsageError(f"{name} looks inside a model.", "Name one as --model vlmend/NAME.")
        subject = api.local.target
        check_access(subject, name, suite.works_on, suite.needs)
        samples = await asyncio.to_thread(suite.samples, subject, read(data), limit, seed=seed)
        rows = suite.measures(samples, seed)
        state.metadata["measures"] = {f"{row.name} {row.group}": row.value for row in rows}
        told = "\n".join(f"{row.name} {row.group}: {row.said()}" for row in rows)
        state.output = ModelOutput.from_content(str(state.model), told)
        return state

    return solve


@metric
def each() -> Metric:
    """Every measure by its name."""

    def compute(scores: list[SampleScore]) -> dict[str, float]:
        return {name: float(value) for score in scores for name, value in (score.score.metadata or {}).items()}

    return compute


@scorer(metrics=[each()])
def measures() -> Scorer:
    """The measures that `measure` found."""

    async def score(state: TaskState, target: Target) -> Score:
        found = cast("dict[str, float]", state.metadata["measures"])
        return Score(value=len(found), explanation=state.output.completion, metadata=found)

    return score


def _sample(question: Question) -> Sample:
    """A question with all that asking and marking it take; a made image is named, and made to the model's size."""
    shown = () if question.image is None or isinstance(question.image, str) else (question.image,)
    turn = Turn("user", question.prompt, (*shown, *question.more_images))
    told: dict[str, Any] = {
        name: getattr(question, name) for name in ("condition", "group", "category", "prompt", "request", "pair")
    }
    told["outside"] = _outside([image for one in (*question.turns, turn) for image in one.images])
    told["made"] = question.image if isinstance(question.image, str) else ""
    asked: list[ChatMessage]
    try:
        asked = [_message(one) for one in (*question.turns, turn)]
    except SampleError as problem:
        told["problem"] = f"{problem.code}: {problem}"
        asked = [ChatMessageUser(content=question.prompt)]
    return Sample(id=question.id, input=asked, target=list(question.target), metadata=told)


def _outside(images: Sequence[Image]) -> str:
    """Why one of them may not be sent to an API, or nothing."""
    try:
        for image in images:
            image.check_sent()
    except SampleError as problem:
        return f"{problem.code}: {problem}"
    return ""


def _is_here() -> bool:
    """Whether the model that Inspect names is one that vlmend loads, so that nothing leaves the machine."""
    api = get_model().api
    return isinstance(api, VlmendAPI) and not isinstance(api.local.target, ApiTarget)


def _question(state: TaskState, target: Target) -> Question:
    told = state.metadata
    return Question(
        str(state.sample_id), told["prompt"], told["condition"], told["group"], told["category"],
        told["made"] or None, tuple(target), request=told["request"], pair=told.get("pair", ""),
    )  # fmt: skip


def _message(turn: Turn) -> ChatMessage:
    if turn.role == "system":
        return ChatMessageSystem(content=turn.text)
    if turn.role == "assistant":
        return ChatMessageAssistant(content=turn.text)
    images: list[Content] = [ContentImage(image=image.to_data_uri()) for image in turn.images]
    return ChatMessageUser(content=[*images, ContentText(text=turn.text)])


def _made(question: Question) -> ChatMessage:
    """The question with the image that is made for this model."""
    api = get_model().api
    side = api.side if isinstance(api, VlmendAPI) else OTHER_SIDE
    return _message(question.conversation(side).turns[-1])
