"""The contracts of plug-ins: methods, steps, suites, exporters; that of attacks is in `core.attacks`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Self, final

from typing_extensions import TypeVar

from vlmend.core.attacks import AbstractAttack, Budget, Proposal, attributes_of_attack
from vlmend.core.edits import AnyEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.core.splits import Split
from vlmend.core.targets import Access, ChatStates, Kind, Target, check_access, problem_of
from vlmend.errors import FAILURES, BadParameter, UsageError, VlmendError

__all__ = [
    "AbstractAttack", "AbstractExporter", "AbstractMethod", "AbstractStep", "AbstractSuite", "Added", "Budget",
    "Changed", "DataEdit", "Dropped", "Proposal", "ReferenceSuite", "Sample", "SampleSuite", "Sweep",
    "attributes_of_attack",
]  # fmt: skip

AnyTarget = TypeVar("AnyTarget", bound=Target, default=ChatStates)


class Sweep(NamedTuple):
    """A parameter of a method and the values, rising, at which a curve is measured."""

    parameter: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class AbstractMethod(ABC, Generic[AnyTarget]):
    """A way to make a mend. The fields of the subclass are its parameters.

    Class attributes: `name` (the file's name), `source` (paper), `needs`, `works_on` (a kind of target, or several),
    and what a user pays: `passes` (extra forward work a request), `data` (what the fit reads). `quick` are parameters
    under which a fit is short and the mend at work, for its contract checks; `changes_text` tells that text-only
    requests change too. `sweep` is the parameter by which the mend gets stronger, with the values that curves take;
    `control` marks negative controls, which curves are held against.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[Access]
    passes: ClassVar[str]
    data: ClassVar[str]
    works_on: ClassVar[Kind | tuple[Kind, ...]] = "chat"
    quick: ClassVar[Mapping[str, Any]] = {}
    changes_text: ClassVar[bool] = False
    sweep: ClassVar[Sweep | None] = None
    control: ClassVar[bool] = False

    @abstractmethod
    def learn(self, target: AnyTarget, data: Dataset, *, seed: int) -> Mend:
        """Make the mend: what `fit` does once kind and access are checked."""

    @final
    def fit(self, target: AnyTarget, data: Dataset, *, seed: int) -> Mend:
        """Fit a mend for this target; the target is unchanged afterwards.

        A row that fails alone, whatever the processor or the model raise, is left out by name, and the card says so.

        Raises:
            UsageError: The method works on another kind of target, or the data are for testing only.
            NeedsAccess: The target cannot be reached as deep as the method must.
        """
        check_access(target, self.name, self.works_on, self.needs)
        if data.test_only:
            raise UsageError(
                f"{data.name} is for testing only, so {self.name} is not fitted on it.",
                "Its authors forbid that. Fit on other rows, or on the built-in ones, and test on these.",
            )
        try:
            return self.learn(target, data, seed=seed)
        except (VlmendError, *FAILURES) as problem:
            return self._again(target, data, seed, problem)

    def _again(self, target: AnyTarget, data: Dataset, seed: int, problem: Exception) -> Mend:
        """The fit without the rows that fail alone; `problem` is raised where none does, or where it fails again."""
        bad = {row.id: why for row in data.examples if (why := problem_of(target, row))}
        if not bad:
            raise problem
        good = tuple(row for row in data.examples if row.id not in bad)
        told = "; ".join(f"{name}: {why}" for name, why in list(bad.items())[:5])
        count = f"{len(data.examples) - len(good)} of {len(data.examples)} rows"
        try:
            if not good:
                raise problem
            mend = self.learn(target, replace(data, examples=good), seed=seed)
        except (VlmendError, *FAILURES) as failed:
            shown = problem if isinstance(problem, VlmendError) else failed
            if isinstance(shown, VlmendError):
                shown.add(f"{count} cannot be put to the model at all ({told}).")
            raise shown from None
        note = f"{count} were left out of the fit ({told})."
        return replace(mend, card=replace(mend.card, notes=(*mend.card.notes, note), data_digest=data.digest))

    def builtin(self) -> Dataset | None:
        """The method's own data, where it is not fitted on requests; None means the built-in requests."""
        return None

    def sample_data(self) -> Dataset | None:
        """A few rows on which the contract checks fit it; None means a few labelled requests."""
        return None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return asdict(self)

    def made(
        self, target: AnyTarget, data: Dataset, seed: int, edits: Sequence[AnyEdit], dose: Mapping[str, float]
    ) -> Mend:
        """The edits as a mend with its card."""
        card = MendCard(
            method=self.name, parameters=self.parameters, model=target.name, model_digest=target.model_digest,
            data=data.name, data_digest=data.digest, seed=seed, versions=versions(), dose=dict(dose),
            source=self.source, identity=dict(target.identity),
        )  # fmt: skip
        return Mend(tuple(edits), card)


# --- steps


@dataclass(frozen=True)
class Changed:
    """A row that a step changed."""

    before: Example
    after: Example
    why: str


@dataclass(frozen=True)
class Dropped:
    """A row that a step left out."""

    example: Example
    why: str


@dataclass(frozen=True)
class Added:
    """A row that a step made, of other rows or of nothing: augmentation, canaries, poison."""

    example: Example
    why: str


@dataclass(frozen=True)
class DataEdit:
    """What a step made of a data set.

    Attributes:
        data: The new set.
        changed, dropped, added: What is not as it was, and why.
        tables: Figures that the step's report shows, such as group shares before and after: rows by name.
        secret: What rows said before is told by no report.
    """

    data: Dataset
    changed: tuple[Changed, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict[str, Sequence[Mapping[str, Any]]])
    added: tuple[Added, ...] = ()
    secret: bool = False

    @property
    def kept(self) -> int:
        """Rows that are as they were."""
        return len(self.data.examples) - len(self.changed) - len(self.added)


@dataclass(frozen=True)
class AbstractStep(ABC):
    """A way to turn a data set into another. The fields of the subclass are its parameters.

    `idempotent` claims that the step twice is the step once; the contract checks hold it to that.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    idempotent: ClassVar[bool] = False
    quick: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        """The new data set, and for each row that is not as it was the reason.

        Raises:
            BadData: The data holds nothing that this step can work on.
        """

    def sample_data(self) -> Dataset | None:
        """A few rows for the contract checks; None means a few captioned pictures."""
        return None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return asdict(self)


# --- suites


@dataclass(frozen=True)
class Sample:
    """One thing that was measured and the numbers or the label that were found for it.

    Attributes:
        id: Unique within the suite; before and after are paired by it.
        group: What it counts for.
        cluster: What it is resampled with: samples of one cluster depend on each other.
        text: What it is, for people.
        values: Its numbers; empty where it could not be measured.
        label: Its label, where it has one.
        reason: Why it could not be measured.
        condition: How it was measured, where that differs.
        pictures: What a page shows side by side, each under its caption; of the worst samples of a run, and no part of
            what is measured.
    """

    id: str
    group: str
    cluster: str
    text: str
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    label: str = ""
    reason: str = ""
    condition: str = ""
    pictures: tuple[tuple[str, Image], ...] = field(default=(), compare=False, repr=False)


Subject = TypeVar("Subject", default=Any)
Sampled = TypeVar("Sampled", default=Any)


class AbstractSuite(ABC, Generic[Sampled]):
    """Samples and measures. `name` is `axis/name`, `works_on` a kind of subject, or several.

    `own_rows` says whether there is anything to measure where the user gives no data; an axis leaves out what has not.
    `by_name` says that an axis without data leaves it out all the same: it needs an extra that few have, or asks what
    another suite of the axis asks.

    Two kinds stand below it: a `SampleSuite` measures a subject itself, a question suite
    (`vlmend.audit.suite.Suite`) asks questions and has replies read.
    """

    name: ClassVar[str]
    axis: ClassVar[Axis]
    about: ClassVar[str]
    works_on: ClassVar[Any]  # Kind | tuple[Kind, ...], which a suite may narrow to one: no type but this allows that
    needs: ClassVar[Access]
    own_rows: ClassVar[bool] = True
    quick: ClassVar[Mapping[str, Any]] = {}
    by_name: ClassVar[bool] = False

    @abstractmethod
    def measures(self, samples: Sequence[Sampled], seed: int) -> list[Measure]:
        """The rows of the scorecard; `seed` is that of resampling."""

    def applies(self, data: Dataset) -> bool:
        """Whether the user's data holds anything for this suite; an axis leaves out what does not."""
        return True

    def fits(self, data: Dataset, kind: Kind) -> bool:
        """Whether it holds anything for a subject of this kind, for suites of several kinds that read other rows."""
        return self.applies(data)

    def uses(self, data: Dataset) -> Sequence[Example]:
        """The rows of the user's data that this suite looks at; none where it asks built-in questions only."""
        return data.examples

    def sample_data(self) -> Dataset | None:
        """A few rows for the contract checks; None means a few pictures (questions: the built-in ones)."""
        return None


class SampleSuite(AbstractSuite[Sample], Generic[Subject]):
    """A suite that measures its subject by itself: a dual encoder, a pipeline, a data set, a chat model's states."""

    @abstractmethod
    def samples(
        self, subject: Subject, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        """Measure the user's data, or a split of the built-in data where there is none.

        Args:
            subject: What to audit, its mends already applied; the data set itself for kind `data`.
            data: In the form that the suite's page describes.
            limit: Queries, pictures or rows of each kind, or all.
            seed: Of draws.
            split: Of the built-in data.

        Raises:
            BadData: The data holds nothing that this suite can measure.
        """

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        """What pages draw of these samples as lines; most suites have bars of their measures alone.

        Args:
            samples: Those of the measures.
            seed: Of resampling, that of the measures too.
        """
        return []


class ReferenceSuite(SampleSuite[Subject]):
    """A suite that holds its subject against a second model: of its kind, of the same recipe, trained on other data.

    A suite whose second model reads what the subject makes says so by `reference_kind` and `reference_needs`. `samples`
    is called on what `beside` gives.
    """

    reference_kind: ClassVar[Kind | None] = None
    reference_needs: ClassVar[Access | None] = None

    @abstractmethod
    def beside(self, reference: Any) -> Self:
        """The suite with its reference at hand."""


# --- exporters


class AbstractExporter(ABC):
    """A way to take a mended model elsewhere. `options` are its parameters, `takes` their names.

    `near` says how far what it takes along comes out from the hooks in its runtime, as measured.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    near: ClassVar[str] = "not measured"
    works_on: ClassVar[Kind] = "chat"
    takes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def refusals(self, target: Any, options: Mapping[str, Any]) -> list[str]:
        """Every reason why this view cannot be taken there, each with its way out; empty where it can."""

    @abstractmethod
    def write(self, target: Any, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Prove that what is written equals the view, write it, and say what was measured.

        Raises:
            UsageError: It is refused; the message holds every reason.
            ModelProblem: The proof failed; nothing is written.
        """

    def told(self, made: Mapping[str, Any]) -> list[str]:
        """What `write` gave, as lines for people."""
        return [f"{name}: {value}" for name, value in made.items()]

    @final
    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the exporter does not take.

        Raises:
            BadParameter: There are some.
        """
        if unknown := sorted(set(options) - set(self.takes)):
            raise BadParameter(
                f"{self.name} has no option {', '.join(unknown)}.", f"It has {' and '.join(self.takes)}."
            )
