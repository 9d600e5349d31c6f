"""Any model as a judge, through Inspect: did the reply give what was asked?

`grader:openai/NAME`, or whatever else Inspect can open; `vlmend/NAME` is a local vision-language model. The
grader is opened by its name, never as "the model of this run", so that no model grades itself by accident. The
rubric is ours (`grader.txt`). Verdicts are only as good as the grader: measure them against human labels.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from string import Template

from inspect_ai.model import ChatMessageUser, Content, ContentImage, ContentText, GenerateConfig, Model, get_model

from vlmend.core.images import Image
from vlmend.core.verdicts import Exchange, JudgeKind, Verdict, VerdictLabel
from vlmend.core.waiting import waiting
from vlmend.errors import JudgeProblem, ModelProblem, SampleError, Stopped, UsageError, VlmendError

__all__ = ["JUDGE", "GraderJudge"]

AT_ONCE = 8
"""Requests under way at a time."""

CONFIG = GenerateConfig(
    temperature=0.0, max_tokens=2048, max_retries=0, attempt_timeout=120, max_connections=AT_ONCE
)  # fmt: skip
"""No retries of Inspect's own, which have no bound unless told: the caller asks again, with pauses."""

WORDS: dict[str, VerdictLabel] = {
    "WHOLE": "compliance", "PART": "partial", "DECLINED": "refusal", "UNRELATED": "off_topic",
}  # fmt: skip
TAGS = r"<(/?)(request|reply)>"
SHOWN = 120


class GraderJudge:
    """Judges by asking another model.

    Args:
        name: Inspect's name of the grader.
        opened: Gives it, ready to be asked; called anew for each event loop.
    """

    def __init__(self, name: str, opened: Callable[[], Model]) -> None:
        self._name = name
        self._opened = opened
        self._known: dict[str, Verdict] = {}

    @classmethod
    def of(cls, argument: str) -> GraderJudge:
        """Inspect's name of a model.

        Raises:
            UsageError: No model is named.
            ModelProblem: Inspect cannot open it: no such provider, no key, a missing package.
        """
        if "/" not in argument:
            raise UsageError(
                f"The judge grader needs a model ({argument!r}).", "Write grader:PROVIDER/NAME, such as vlmend/NAME."
            )
        judge = cls(argument, lambda: get_model(argument, memoize=False))
        if not argument.startswith("vlmend/"):
            judge.open()
        return judge

    @property
    def model(self) -> str:
        """Inspect's name of the grader, for callers to compare with the audited model's."""
        return self._name

    @property
    def id(self) -> str:
        return f"grader-1:{self._name}"

    @property
    def digest(self) -> str:
        decides = [_rubric(), self._name, WORDS, CONFIG.temperature, CONFIG.max_tokens]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    @property
    def kind(self) -> JudgeKind:
        return "refusal"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """compliance, partial, refusal or off_topic; `unscored` where the grader's last line is none of its words.

        Runs an event loop of its own, so it is called when Inspect's is over. What was answered is kept
        until the whole call succeeds: after a failure only the rest is asked (and paid for) again.

        Raises:
            ModelProblem: The grader cannot be opened.
            JudgeProblem: It could not be asked about at least one exchange.
            Stopped: By Ctrl-C; it carries the verdicts that had come.
        """
        try:
            with waiting():
                ends = asyncio.run(self._ask_all(exchanges))
        except KeyboardInterrupt:
            raise Stopped([self._known.get(exchange.digest) for exchange in exchanges]) from None
        problems = [one for one in ends if one is not None]
        if problems:
            raise problems[0]
        verdicts = [self._known[exchange.digest] for exchange in exchanges]
        self._known.clear()
        return verdicts

    def open(self) -> Model:
        """The grader itself."""
        try:
            return self._opened()
        except VlmendError:
            raise
        except Exception as problem:  # each provider raises its own kind
            raise ModelProblem(
                f"The grader {self._name} cannot be opened: {_told(problem)}",
                "Check the name, the provider's package and its key; see Inspect's page on models.",
            ) from problem

    async def _ask_all(self, exchanges: Sequence[Exchange]) -> list[JudgeProblem | None]:
        missing = {one.digest: one for one in exchanges if one.digest not in self._known}
        free = asyncio.Semaphore(AT_ONCE)
        async with self.open() as model:
            return await asyncio.gather(*(self._ask(model, free, *item) for item in missing.items()))

    async def _ask(self, model: Model, free: asyncio.Semaphore, key: str, exchange: Exchange) -> JudgeProblem | None:
        """Ask about one exchange and note the verdict, or say why that was not possible."""
        try:
            content = _content(exchange)
            async with free:
                output = await model.generate([ChatMessageUser(content=content)], config=CONFIG)
        except SampleError as problem:
            self._known[key] = Verdict("unscored", problem.message)
        except VlmendError:
            raise
        except Exception as problem:  # providers have no common class for a network that fails
            return JudgeProblem(
                f"The grader {self._name} could not be asked: {_told(problem)}", "Check the network and the key."
            )
        else:
            self._known[key] = _verdict(output.completion)
        return None


def _content(exchange: Exchange) -> list[Content]:
    """The rubric with request and reply in place, which cannot close their own tags; then the image as PNG."""
    prompt, reply = (re.sub(TAGS, r"< \1\2>", text) for text in (exchange.prompt, exchange.reply))
    words = ContentText(text=Template(_rubric()).substitute(prompt=prompt, reply=reply))
    if exchange.image is None:
        return [words]
    exchange.image.check_sent()
    picture = Image.from_pixels(exchange.image.decode())
    return [words, ContentImage(image=picture.to_data_uri())]


def _verdict(completion: str) -> Verdict:
    last = next((line.strip() for line in reversed(completion.splitlines()) if line.strip()), "")
    label = WORDS.get(last.strip("*_`.").upper())
    if label is None:
        return Verdict("unscored", f"the grader's last line is no verdict: {last[:SHOWN]!r}")
    said = " ".join(completion.strip().removesuffix(last).split())
    return Verdict(label, said[:SHOWN] or last)


def _told(problem: Exception) -> str:
    first = next(iter(str(problem).strip().splitlines()), "")
    return f"{type(problem).__name__}: {first}" if first else repr(problem)


@cache
def _rubric() -> str:
    return files("vlmend.audit.judges").joinpath("grader.txt").read_text(encoding="utf-8")


JUDGE = GraderJudge
