"""What requests come with on curves: the photograph's place taken by nothing, noise, or what an attack made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from vlmend.attacks.reading import words_read
from vlmend.audit.suite import Question
from vlmend.audit.suites.safety.alignment_gap import READ_SO
from vlmend.core.cautions import READS
from vlmend.core.images import Image
from vlmend.errors import UsageError
from vlmend.studies.asking import Asker, Panel
from vlmend.studies.measuring import Panels

__all__ = ["CARRIERS", "Carrier", "carriers_in", "under", "unread"]

Ours = Literal["photo", "blank", "noise"]
Carrier = Literal[Ours, "typographic", "optimised"]
"""photo: the request's own picture, or a built-in one. blank, noise: no content. typographic: words drawn by an attack
on the data that is asked. optimised: pixels that one moved."""

OURS: tuple[Ours, ...] = get_args(Ours)
CARRIERS: tuple[Carrier, ...] = (*OURS, "typographic", "optimised")


def carriers_in(text: str) -> tuple[Carrier, ...]:
    """Carriers with commas between.

    Raises:
        UsageError: One that there is not.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    strange = [name for name in found if name not in CARRIERS]
    if strange or not found:
        raise UsageError(f"There is no carrier {', '.join(strange) or text!r}.", f"There are: {', '.join(CARRIERS)}.")
    return tuple(carrier for carrier in CARRIERS if carrier in found)


def under(asked: Panels, carrier: Carrier | None) -> tuple[Panel, Panel]:
    """The harmful and the harmless requests under one carrier; None is the request as text.

    Beside an optimised picture harmless requests come as the attack left them; where it left none, they stand beside
    the pictures of the harmful ones, in turn.

    Raises:
        UsageError: The data that is asked holds no requests under this carrier.
    """
    harm, rest = _carried(asked.harmful, carrier), _carried(asked.harmless, carrier)
    if carrier in (None, *OURS):
        return harm, rest
    if carrier == "optimised" and harm.questions and not rest.questions:
        rest = _beside(asked.harmless.only("original"), _pictures(harm.questions))
    lacking = "harmful" if not harm.questions else "" if rest.questions else "harmless"
    if lacking:
        raise UsageError(
            f"The data that is asked holds no {lacking} requests under the carrier {carrier}.",
            "Attack the data first (vlmend list attacks), and pass the folder that this leaves as --test.",
        )
    return harm, rest


def _carried(asked: Panel, carrier: Carrier | None) -> Panel:
    """The questions of a panel under one carrier: those that stand so in it, or with one of ours in the picture's
    place."""
    if carrier is None:
        return asked.only("query")
    if carrier == "photo":
        return asked.only("original")
    if carrier in ("typographic", "optimised"):
        return asked.only(carrier)
    return replace(asked, questions=tuple(
        replace(q, id=_named(q, carrier), condition=carrier, image=carrier, more_images=())
        for q in asked.only("original").questions
    ))  # fmt: skip


def unread(asker: Asker, asked: Panels, carriers: Sequence[Carrier]) -> dict[Carrier, float]:
    """The carriers whose drawn words the model does not read (below `READS`), with the share that it reads.

    What an attack does to it under those says nothing.
    """
    found: dict[Carrier, float] = {}
    for carrier in carriers:
        reads = asked.harmful.only(f"{carrier}{READ_SO}")
        told = [words_read(one.reply, one.target[0]) for one in asker.ask(reads) if not one.problem]
        if told and sum(told) < READS * len(told):
            found[carrier] = sum(told) / len(told)
    return found


def _beside(asked: Panel, pictures: Sequence[Image]) -> Panel:
    return replace(asked, questions=tuple(
        replace(q, id=_named(q, "optimised"), condition="optimised", image=pictures[k % len(pictures)], more_images=())
        for k, q in enumerate(asked.questions)
    ))  # fmt: skip


def _pictures(questions: Sequence[Question]) -> list[Image]:
    """The pictures of some questions, each once."""
    found = [q.image for q in questions if isinstance(q.image, Image)]
    return list({image.digest: image for image in found}.values())


def _named(question: Question, carrier: Carrier) -> str:
    return f"{question.id.rpartition(':')[0]}:{carrier}"
