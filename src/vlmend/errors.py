"""Every error vlmend raises on purpose.

    VlmendError
    ├── UsageError            what was asked cannot be read or does not fit together   (exit 2)
    │   ├── NameClash         two plug-ins of one name
    │   ├── BrokenPlugin      a plug-in that cannot be imported
    │   ├── UnknownName       a method, suite, model or data set that is not registered
    │   ├── BadParameter      a parameter outside what its method allows
    │   ├── BadData           a data file with rows that cannot be used
    │   └── SeveralProblems   more than one mistake in what was asked
    ├── EnvironmentProblem    the machine or the model is not able                      (exit 3)
    │   ├── ModelProblem      a model that cannot be found, loaded or used
    │   ├── NeedsAccess       work inside a model that cannot be reached so deep
    │   ├── BatchProblem      some requests of a batch have no reply, the others do
    │   ├── AnatomyProblem    the decoder blocks of a model cannot be told for sure
    │   ├── MendMismatch      a mend that was made for another model
    │   ├── MissingExtra      an optional library that is not installed
    │   ├── RunProblem        a run folder that cannot be written or is in use
    │   └── JudgeProblem      a judge that cannot be asked now
    └── SampleError           one sample is bad; the run counts it and goes on
        └── BadImage          an image that is missing, broken, too large or no image

Each carries a stable `code`, says what was given, and has a `hint` with the way out. Anything
else that reaches the user is a bug of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

__all__ = [
    "FAILURES",
    "AnatomyProblem",
    "BadData",
    "BadImage",
    "BadParameter",
    "BatchProblem",
    "BrokenPlugin",
    "EnvironmentProblem",
    "JudgeProblem",
    "MendMismatch",
    "MissingExtra",
    "ModelProblem",
    "NameClash",
    "NeedsAccess",
    "RunProblem",
    "SampleError",
    "SeveralProblems",
    "Stopped",
    "UnknownName",
    "UsageError",
    "VlmendError",
    "cause_of",
    "check_all",
    "without_addresses",
]


FAILURES = (
    ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, StopIteration,
    OSError,
)  # fmt: skip
"""What processors, models and other libraries raise over a row that they cannot read."""


def cause_of(problem: BaseException, most: int = 200) -> str:
    """What another library raised, for people: its first line, shortened, without addresses of objects."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    line = next(iter(str(problem).strip().splitlines()), "") or type(problem).__name__
    return without_addresses(line)[:most]


def without_addresses(text: str) -> str:
    """`<PIL.Image object at 0x7f...>` as `PIL.Image`: where an object stood in memory tells nobody anything."""
    return re.sub(r"<([\w.]+)(?: object)? at 0x[0-9a-f]+>", r"\1", text)


class VlmendError(Exception):
    """An error with a cause and a way out.

    Args:
        message: What is wrong and what was given, in one sentence.
        hint: What to do about it.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.message = message
        self.hint = hint

    def add(self, sentence: str) -> None:
        """Say more of what is wrong, before the hint."""
        self.message = f"{self.message} {sentence}"
        self.args = (f"{self.message} {self.hint}",)


class UsageError(VlmendError):
    """What was asked cannot be read or does not fit together."""

    code = "usage"
    exit_code = 2


class UnknownName(UsageError):
    """A name that is not registered."""

    code = "unknown-name"


class NameClash(UsageError):
    """Two plug-ins of one name."""

    code = "name-clash"


class BrokenPlugin(UsageError):
    """A plug-in that cannot be imported, or whose file does not hold what its place says."""

    code = "broken-plugin"


class BadParameter(UsageError):
    """A parameter outside what its method allows."""

    code = "bad-parameter"


class BadData(UsageError):
    """A data file with rows that cannot be used."""

    code = "bad-data"


class SeveralProblems(UsageError):
    """More than one mistake in what was asked, all of them named.

    Args:
        problems: Each with its own cause and way out.
    """

    code = "several"

    def __init__(self, problems: Sequence[VlmendError]) -> None:
        told = [f"\n  {k}. [{one.code}] {one.message} {one.hint}" for k, one in enumerate(problems, 1)]
        super().__init__(f"{len(problems)} things are wrong:{''.join(told)}", "Nothing was loaded or asked yet.")
        self.problems = tuple(problems)


def check_all(checks: Iterable[Callable[[], object]]) -> None:
    """Make every check, so that a user meets all mistakes at once.

    Raises:
        VlmendError: What the only check that failed raised.
        SeveralProblems: Several failed.
    """
    problems: list[VlmendError] = []
    for check in checks:
        try:
            check()
        except VlmendError as problem:
            problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise SeveralProblems(problems)


class EnvironmentProblem(VlmendError):
    """The machine or the model is not able to do what was asked."""

    code = "environment"


class ModelProblem(EnvironmentProblem):
    """A model that cannot be found, loaded or used."""

    code = "model"


class NeedsAccess(EnvironmentProblem):
    """Work inside a model (its states, gradients or weights) that cannot be reached so deep."""

    code = "needs-access"


class BatchProblem(EnvironmentProblem):
    """Some requests of a batch have no reply, the others do.

    Args:
        message: What is wrong and what was given, in one sentence.
        hint: What to do about it.
        outcomes: For each request, in order, its reply or its own error.
    """

    code = "batch"

    def __init__(self, message: str, hint: str, outcomes: Sequence[object]) -> None:
        super().__init__(message, hint)
        self.outcomes = tuple(outcomes)


class AnatomyProblem(EnvironmentProblem):
    """The decoder blocks of a model cannot be told for sure."""

    code = "anatomy"


class MendMismatch(EnvironmentProblem):
    """A mend that was made for another model."""

    code = "mend-mismatch"


class MissingExtra(EnvironmentProblem):
    """An optional library that is not installed."""

    code = "missing-extra"


class RunProblem(EnvironmentProblem):
    """A run folder that cannot be written or is in use."""

    code = "run"


class JudgeProblem(EnvironmentProblem):
    """A judge that cannot be asked now; asking again may help."""

    code = "judge"


class SampleError(VlmendError):
    """One sample is bad; the run counts it and goes on."""

    code = "sample"


class BadImage(SampleError):
    """An image that is missing, broken, too large or no image at all."""

    code = "bad-image"


class Stopped(KeyboardInterrupt):
    """The user stopped a batch in the middle.

    Args:
        outcomes: For each request, in order, its reply or verdict, its own error, or None where it was not answered
            yet; those at the end may be left out.
    """

    def __init__(self, outcomes: Sequence[object]) -> None:
        super().__init__("stopped")
        self.outcomes = tuple(outcomes)
