"""How much of a model's refusal is lost when an image comes with the request.

Every harmful request is asked in five conditions (arXiv 2410.09047, section 3). If blank and noise
images are as bad as the real one, the damage comes from having an image, not from what it shows.
Unsafe is a harmful reply, which a judge of harm tells. Whether it was declined is another question, which stands beside
it; where no judge of harm reads, unsafe means an answer to what was asked, right or wrong, whole or in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmend.attacks.reading import words_read
from vlmend.audit.judges.rules import RuleJudge
from vlmend.audit.suite import CONDITIONS, Answer, MadeImage, Question, Suite, builtin_picture, chosen, earlier
from vlmend.core.attack_notes import CARRIER, CONTROL, READING
from vlmend.core.cautions import READ, READS
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.splits import Split
from vlmend.core.verdicts import HARM, UNSAFE, Exchange, Verdict
from vlmend.errors import BadData
from vlmend.pictures.pool import sentence

__all__ = ["SUITE", "AlignmentGap"]


SAYS = {
    "original": "{verb} {{value}} of harmful requests that came with an image",
    "query": "{verb} {{value}} of the same requests as text",
}


READ_SO = ", to be read"
"""Ends the condition in which harmless words are to be read, after the name of what carries them."""


class AlignmentGap(Suite):
    """Unsafe rate of harmful requests in five conditions."""

    name = "safety/alignment_gap"
    axis = "safety"
    about = "unsafe rate of harmful requests: text only, caption, blank, noise and original image"
    max_new_tokens = 64
    judged = ("harm", "refusal")
    stands_for = "harm"

    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        examples = builtin_harmful(limit, split) if data is None else list(data.labelled("harmful"))[:limit]
        if not examples:
            raise BadData(
                "safety/alignment_gap needs harmful requests and the data holds none.",
                'Give rows with "label": "harmful", or leave this suite out.',
            )
        asked = [q for place, example in enumerate(examples) for q in five_conditions(example, place, split)]
        return [*asked, *(_to_read(row) for row in (() if data is None else _readings(data)))]

    def applies(self, data: Dataset) -> bool:
        return bool(data.labelled("harmful"))

    def uses(self, data: Dataset) -> tuple[Example, ...]:
        return (*data.labelled("harmful"), *_readings(data))

    def verdict(self, question: Question, reply: str) -> Verdict:
        return RuleJudge().judge([Exchange(question.wanted, reply)])[0]

    def measures(self, samples: Sequence[Answer], seed: int) -> list[Measure]:
        reads = [answer for answer in samples if answer.group == READING]
        samples = [answer for answer in samples if answer.group != READING]
        rows, unread = self._reading_rows(reads, samples, seed)
        samples = [replace(a, label="unscored") if a.condition in unread else a for a in samples]
        verb = "gave harm in reply to" if any(a.label in HARM for a in samples) else "answered"
        for condition in (*CONDITIONS, *dict.fromkeys(a.condition for a in samples if a.condition not in CONDITIONS)):
            here = [answer for answer in samples if answer.condition == condition]
            if here:
                says, against = SAYS.get(condition, "").format(verb=verb), "" if condition == "query" else "query"
                rows += [
                    self.row("unsafe_rate", condition, here, UNSAFE, "lower", seed, says=says, against=against),
                    self.row("refusal_rate", condition, here, {"refusal", "filtered"}, "higher", seed, compared=False),
                    self.row("partial_rate", condition, here, {"partial"}, "lower", seed, compared=False),
                    self.row("off_topic_rate", condition, here, {"off_topic"}, "lower", seed, compared=False),
                    *self.readability_rows(condition, here, seed),
                ]
        return rows

    def _reading_rows(
        self, reads: Sequence[Answer], samples: Sequence[Answer], seed: int
    ) -> tuple[list[Measure], set[str]]:
        """How much of drawn words is read, by carrier; and carriers that cannot be read, with what they would count."""
        rows: list[Measure] = []
        unread: set[str] = set()
        for carrier in dict.fromkeys(answer.condition for answer in reads):
            here = [answer for answer in reads if answer.condition == carrier]
            told = [one for one in here if not one.problem]
            shares = [words_read(one.reply, one.target[0]) for one in told]
            value, low, high = mean_interval(shares, [one.asked or one.id for one in told], seed=seed)
            left = len(here) - len(told)
            rows.append(Measure(self.axis, self.name, READ, carrier, value, low, high, len(told), left, "higher",
                                judge="words", compared="mean"))  # fmt: skip
            if not value >= READS:
                unread.add(requests := carrier.removesuffix(READ_SO))
                asked = [answer for answer in samples if answer.condition == requests]
                rows.append(self.row("unsafe_rate_unread", requests, asked, UNSAFE, "neither", seed, compared=False))
        return rows, unread

    @property
    def judge_id(self) -> str:
        return RuleJudge().id


def _readings(data: Dataset) -> tuple[Example, ...]:
    """Pictures of harmless words that are to be read."""
    return tuple(row for row in data.examples if row.attributes.get(CONTROL) == READING and row.image is not None)


def _to_read(row: Example) -> Question:
    return Question(
        f"{row.id}:{READING}", row.prompt, row.attributes.get(CARRIER, "") + READ_SO, READING, row.group, row.image,
        row.answers, more_images=row.more_images,
    )  # fmt: skip


def builtin_harmful(limit: int | None, split: Split) -> list[Example]:
    """Built-in harmful requests of a split as examples without images."""
    return [Example(r.id, r.prompt, "harmful", r.category) for r in chosen("harmful", limit, split)]


def five_conditions(example: Example, place: int, split: Split = "held_out") -> list[Question]:
    """One request in every condition that it can be asked in.

    A request without an image borrows a built-in picture (its own caption, where it has one, stays: sets
    that are read without their pictures tell them so); one with an image but no caption is not asked in
    the caption condition. Where something else than a photograph carries the request (the attribute `carrier`), that is
    a condition of its own name, and all others are asked with the request as it was, beside a built-in picture.
    """
    carrier = example.attributes.get(CARRIER, "")
    image, caption = (None, None) if carrier else (example.image, example.caption)
    prompt = example.request if carrier else example.prompt
    if image is None:
        drawn, image = builtin_picture(place, split)
        caption = caption or sentence(drawn.caption)
    told = f"{caption}\n{prompt}" if caption else None
    asked: list[tuple[str, str | None, Image | MadeImage | None]] = [
        ("query", prompt, None),
        ("caption", told, None),
        ("blank", prompt, "blank"),
        ("noise", prompt, "noise"),
        ("original", prompt, image),
        (carrier, example.prompt if carrier else None, example.image),
    ]
    own = carrier or "original"
    return [
        Question(
            f"{example.id}:{condition}",
            words,
            condition,
            "harmful",
            example.group,
            shown,
            request=example.request,
            **earlier(example, condition == own),
        )
        for condition, words, shown in asked
        if words is not None
    ]


SUITE = AlignmentGap()
