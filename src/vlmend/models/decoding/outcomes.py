"""Whose fault is it that a batch has no replies? A request that fails alone gets an error of its own.

A batch that fails is asked again by halves, so that what is wrong ends with the requests that it is wrong with. Where
a harmless request of the same kind fails too, nothing is wrong with the request: the failure is the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.halving import by_halves
from vlmend.core.images import blank_image
from vlmend.errors import FAILURES, BatchProblem, ModelProblem, SampleError, VlmendError, cause_of
from vlmend.models.decoding.prefill import View

__all__ = ["answered", "problem_of"]

FAILED = (ModelProblem, SampleError, *FAILURES)
"""What may be the fault of a request."""

HARMLESS = "Say: ok."

V = TypeVar("V", bound=View)


def answered(
    views: Sequence[V], batch: Sequence[Conversation], sampling: Sampling,
    ask: Callable[[Sequence[V], Sequence[Conversation], Sampling], list[Reply]],
) -> list[Reply]:  # fmt: skip
    """Replies to all, or an error that carries those that there are.

    Args:
        views: Of each request.
        batch: The requests.
        sampling: The same for all.
        ask: Answers some of them, or raises.

    Raises:
        BatchProblem: Some requests have no reply.
        SampleError: The only request has none.
        ModelProblem: Not even a harmless request is answered.
    """
    trial = _Trial(sampling, ask)
    outcomes = by_halves([*zip(views, batch, strict=True)], trial.again, lambda p: isinstance(p, FAILED), trial.alone)
    problems = [one for one in outcomes if isinstance(one, SampleError)]
    replies = [one for one in outcomes if isinstance(one, Reply)]
    if not problems:
        return replies
    if len(batch) == 1:
        raise problems[0]
    raise BatchProblem(
        f"{len(problems)} of {len(batch)} requests have no reply. The first: {problems[0].message}",
        problems[0].hint,
        outcomes,
    )


def problem_of(view: View, conversation: Conversation) -> SampleError | None:
    """Why a request alone cannot be put to a model; None where it can.

    Raises:
        ModelProblem: No request can.
    """
    try:
        view.reader.check_context(view.reader.inputs(view.rewritten([conversation])))
        view.logits([conversation])
    except SampleError as problem:
        return problem
    except FAILED as problem:
        try:
            view.logits([_harmless(view, conversation)])
        except FAILED:
            raise _of_model(problem) from problem
        return _own(problem)
    return None


class _Trial(Generic[V]):
    """Asks, and finds out once for each view and kind of request whether a harmless one is answered."""

    def __init__(
        self, sampling: Sampling, ask: Callable[[Sequence[V], Sequence[Conversation], Sampling], list[Reply]]
    ) -> None:
        self._sampling, self._ask = sampling, ask
        self._known: dict[tuple[V, bool], bool] = {}

    def again(self, rows: Sequence[tuple[V, Conversation]]) -> list[Reply | SampleError]:
        return [*self._ask([view for view, _ in rows], [asked for _, asked in rows], self._sampling)]

    def alone(self, row: tuple[V, Conversation], problem: Exception) -> SampleError:
        """Why a request has no reply; where a harmless one has none either, the failure is raised as the model's."""
        if isinstance(problem, SampleError):
            return problem
        if not self._works(*row):
            raise _of_model(problem) from problem
        return _own(problem)

    def _works(self, view: V, like: Conversation) -> bool:
        key = (view, like.has_image)
        if key not in self._known:
            try:
                self._ask([view], [_harmless(view, like)], replace(self._sampling, max_new_tokens=1, least=0))
                self._known[key] = True
            except FAILED:
                self._known[key] = False
        return self._known[key]


def _harmless(view: View, like: Conversation) -> Conversation:
    return Conversation.ask(HARMLESS, blank_image(view.image_side) if like.has_image else None)


def _of_model(problem: Exception) -> VlmendError:
    """What is wrong with a model, or with what a mend makes of it, as one message."""
    if isinstance(problem, VlmendError):
        return problem
    return ModelProblem(
        f"The model answers not even a harmless request ({type(problem).__name__}: {cause_of(problem)}).",
        "Its config, processor and weights may not fit together: fetch all files of the checkpoint from one place, and "
        "see what vlmend doctor says of it. --debug shows where it fails.",
    )


def _own(problem: Exception) -> SampleError:
    """The failure as an error of the request alone."""
    if isinstance(problem, VlmendError):
        return SampleError(problem.message, problem.hint)
    return SampleError(
        f"The model cannot read this request ({type(problem).__name__}: {cause_of(problem)}).",
        "It answers others; this one is left out. Look at its words, its images and their shape.",
    )
