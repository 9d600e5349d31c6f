"""An audit in parts: each asks its share of the requests into a journal of its own, and the audit itself reads all.

The folder of shard 1 of 4 is `shards/1-of-4` in the run folder. A run may be divided anew at any time: what any shard,
or the run itself, has a reply to is not asked again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlmend import registry
from vlmend.audit.asking import Asked, asked_of, read
from vlmend.audit.desk import BATCH, Desk
from vlmend.audit.notes import new_note, parts_note
from vlmend.audit.plan import Plan, reachable, suites_of
from vlmend.audit.run_folder import claim
from vlmend.audit.suite import Question, Suite
from vlmend.core.examples import Dataset
from vlmend.core.files import held, write_json
from vlmend.core.images import Image
from vlmend.core.targets import CALLED, ChatTarget, Kind, Target, check_access
from vlmend.errors import BadParameter, RunProblem, UsageError

__all__ = [
    "Shard", "ask_shard", "check_divides", "left_notes", "settled", "shard_folders", "shards_folder", "wait_until_free",
]  # fmt: skip

DONE = "done.json"
"""In a shard's folder once all of its requests were asked."""


@dataclass(frozen=True)
class Shard:
    """One of `of` shares, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`1/4` is the first of four.

        Raises:
            BadParameter: It is no such share.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, of = (int(part) for part in found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            raise BadParameter(f"{text!r} is no share of an audit.", "Write 1/4 to 4/4 for the four parts of it.")
        return cls(number, of)

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.number}-of-{self.of}"

    def holds(self, question: Question) -> bool:
        """Whether it asks this question, in every epoch; equal requests are asked by one shard."""
        return _share(question, self.of) == self.number


def shards_folder(out: Path) -> Path:
    """Where the shards of a run are."""
    return out / "shards"


def shard_folders(out: Path) -> list[Path]:
    """The folders of the shards that were begun, however the run was divided."""
    return sorted(shards_folder(out).glob("*-of-*"))


def ask_shard(
    target: Target, plan: Plan, out: Path, shard: Shard, *,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None, batch: int = BATCH,
    note: Callable[[str], None] = lambda line: None,
) -> int:  # fmt: skip
    """Ask one share of an audit; run again after a stop of any kind, no finished reply is asked for again.

    Nothing is judged: when all shards are done, `run.audit` of the same folder asks what is left, which is what failed.
    Suites that measure by themselves are left to it as well.

    Args:
        target: What to audit, its mends already applied.
        plan: What to ask, all of it.
        out: The run folder.
        shard: Which share.
        progress: Called with (`ask`, done, total).
        batch: Largest batch, in requests.
        note: Called with how many of them had a reply before, where any had.

    Returns:
        Its number of requests.

    Raises:
        UsageError: The target does not answer, or no suite asks.
        RunProblem: The shard's folder holds another run, is in use, or cannot be written.
    """
    check_divides(target.kind)
    assert isinstance(target, ChatTarget)
    folder, data = shards_folder(out) / shard.name, read(plan.data)
    mine = [one for one in _asked(target, plan, data) if shard.holds(one.question)]
    with held(folder):
        claim(folder, plan, target, data)
        others = [other for other in shard_folders(out) if other != folder]
        desk, done = Desk(folder, batch, shards=[out, *others]), 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress("ask", done, len(mine))

        for _ in desk.each(target, (one.request(target.image_side) for one in mine), tick):
            pass
        write_json(folder / DONE, {"requests": len(mine)})
    for line in new_note(len(desk.journal.keys) - desk.journal.reused, desk.journal.reused):
        note(line)
    return len(mine)


def check_divides(kind: Kind) -> None:
    """
    Raises:
        UsageError: Subjects of this kind do not answer.
    """
    if kind != "chat":
        raise UsageError(f"{CALLED[kind]} is asked nothing, so there is nothing to share out.", "Audit it as a whole.")


def left_notes(out: Path, asked: Sequence[Asked], unanswered: Callable[[Sequence[Asked]], Sequence[str]]) -> list[str]:
    """Which shards of a run are missing or unfinished, and how many requests are asked because of that.

    Shards are named by the division of which most were begun.

    Args:
        out: The run folder.
        asked: All that the audit asks.
        unanswered: The key of each of some requests, empty where it has a reply; called with those that no finished
            shard has.
    """
    names = [re.fullmatch(r"(\d+)-of-(\d+)", folder.name) for folder in shard_folders(out)]
    begun = {Shard(int(name[1]), int(name[2])) for name in names if name}
    if not begun:
        return []
    done = {shard for shard in begun if (shards_folder(out) / shard.name / DONE).exists()}
    ways = Counter(shard.of for shard in done)
    own = [one for one in asked if not any(Shard(_share(one.question, of), of) in done for of in ways)]
    keys = unanswered(own)
    left = [one for one, key in zip(own, keys, strict=True) if key]
    counts = Counter(shard.of for shard in begun)
    of = max(counts, key=lambda way: (counts[way], way))
    lacking = [Shard(number, of) for number in sorted({_share(one.question, of) for one in left})]
    missing = [f"{shard.number}/{of}" for shard in lacking if shard not in begun]
    return parts_note(missing, [f"{shard.number}/{of}" for shard in lacking if shard in begun], len({*keys} - {""}))


@contextmanager
def settled(out: Path, plan: Plan, subject: Target | Dataset, data: Dataset | None) -> Generator[list[Path]]:
    """The folders of a run's shards, nobody at work in them while the block lasts.

    Raises:
        RunProblem: A shard is being worked on, or is of another run.
    """
    with ExitStack() as stack:
        folders = shard_folders(out)
        for folder in folders:
            stack.enter_context(held(folder))
            claim(folder, plan, subject, data)
        yield folders


def wait_until_free(out: Path, seconds: float, shard: Shard | None = None) -> None:
    """Wait for workers whose driver or host was killed: they end soon after it.

    Args:
        out: The run folder.
        seconds: At most so long.
        shard: Wait for those of one shard only.

    Raises:
        RunProblem: One is still at work after so many seconds.
    """
    until = time.monotonic() + seconds
    for folder in shard_folders(out) if shard is None else [shards_folder(out) / shard.name]:
        while True:
            try:
                with held(folder):
                    break
            except RunProblem:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)


def _asked(target: ChatTarget, plan: Plan, data: Dataset | None) -> list[Asked]:
    """All that the audit asks.

    Raises:
        UsageError: Nothing.
    """
    every = [registry.suite(name) for name in suites_of(plan.suites, data, "chat", reference=True)]
    asking = {one.name: one for one in reachable(every, plan.suites, target) if isinstance(one, Suite)}
    if not asking:
        raise UsageError("No suite of this audit asks the model anything.", "Run it as a whole, without shards.")
    for suite in asking.values():
        check_access(target, suite.name, suite.works_on, suite.needs)
    return asked_of(asking, {name: suite.questions(data, plan.limit) for name, suite in asking.items()}, plan)


def _share(question: Question, of: int) -> int:
    """Which of so many shares asks a question, counted from 1."""
    told = "\n".join((question.prompt, question.lead, _shown(question)))
    return int(hashlib.sha256(told.encode(errors="replace")).hexdigest()[:12], 16) % of + 1


def _shown(question: Question) -> str:
    """What tells the picture of a question apart, without opening a file; noise is made from the question's id."""
    match question.image:
        case Image(source=bytes()) as image:
            return image.digest
        case Image(source=place):
            return str(place)
        case "noise":
            return question.id
        case other:
            return str(other)
