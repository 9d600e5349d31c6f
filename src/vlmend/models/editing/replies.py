"""The interpreter of edits that decline, check or choose replies, around plain decoding.

An engine decodes under every other edit; here is what happens before and after: `RefuseWhen` first,
then decoding of what is left, then `ReviewReply` and `AlignReply` in their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Protocol, assert_never, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    AlignReply,
    ContrastLogits,
    ContrastShift,
    CosineDose,
    Edit,
    FilterImage,
    Gate,
    LoadAdapter,
    ModuleEdit,
    ProjectOut,
    RefuseWhen,
    ReplaceWeights,
    ReviewReply,
    RewritePrompt,
    ShowExamples,
    ShowNearest,
    ShowReasoned,
    When,
)
from vlmend.core.reasoning import parsed
from vlmend.core.sites import Site
from vlmend.errors import UnknownName
from vlmend.models.editing.states import score
from vlmend.models.reading.reader import Reader

__all__ = ["CAPTION_REQUEST", "Engine", "ReplyScorer", "answer", "captioned"]

CAPTION_REQUEST = "Describe the image."
CAPTION_TOKENS = 32
CHECK_TOKENS = 8

ReplyScorer = Callable[[Sequence[Conversation], Sequence[str]], Sequence[float]]
"""Scores replies to requests: the smaller the safer, above 0 unsafe. An entry point in the group
`vlmend.scorers` gives one; `AlignReply` names it."""


@runtime_checkable
class Engine(Protocol):
    """What edits of replies need of a model: decoding under every other edit."""

    def decode(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]: ...


@runtime_checkable
class OpenEngine(Engine, Protocol):
    """A model that can be looked into, as `RefuseWhen` and `AlignReply` do."""

    @property
    def reader(self) -> Reader: ...

    def lens(
        self, batch: Sequence[Conversation], layers: Sequence[int], token_ids: Sequence[int]
    ) -> Float[Tensor, " example"]: ...


def answer(engine: Engine, edits: Sequence[Edit], batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
    """One reply for each request, in order; `seconds` is each one's share of everything that was done."""
    began = time.monotonic()
    replies: dict[int, Reply] = {}
    for edit in edits:
        if isinstance(edit, RefuseWhen):
            replies |= _declined(_opened(engine), edit, batch, replies)
    rest = [k for k in range(len(batch)) if k not in replies]
    if rest:
        replies |= _decoded(engine, edits, batch, rest, sampling)
    for edit in edits:
        match edit:
            case ShowReasoned():
                replies |= _shown(edit, batch, {k: replies[k] for k in rest})
            case ReviewReply():
                replies |= _reviewed(engine, edit, batch, replies, sampling)
            case AlignReply():
                replies |= _aligned(_opened(engine), edit, batch, replies, sampling)
            case (
                AddVector() | ProjectOut() | CosineDose() | AffineMap() | ModuleEdit() | ContrastShift()
                | RewritePrompt() | ShowExamples() | ShowNearest() | FilterImage() | ContrastLogits() | LoadAdapter()
                | ReplaceWeights() | RefuseWhen()
            ):  # fmt: skip
                pass  # done inside decode, or before it
            case _:
                assert_never(edit)
    seconds = (time.monotonic() - began) / len(batch)
    return [replace(replies[k], seconds=seconds) for k in range(len(batch))]


def _decoded(
    engine: Engine, edits: Sequence[Edit], batch: Sequence[Conversation], rows: Sequence[int], sampling: Sampling
) -> dict[int, Reply]:
    """Replies to these rows; those that are to reason may be longer."""
    reasoning = [edit for edit in edits if isinstance(edit, ShowReasoned)]
    longer = {k for edit in reasoning for k in _meant(edit.when, batch)}
    more = sum(edit.tokens for edit in reasoning)
    found: dict[int, Reply] = {}
    for extra in sorted({0, more}):
        own = [k for k in rows if (k in longer) is bool(extra)]
        if own:
            asked = replace(sampling, max_new_tokens=sampling.max_new_tokens + extra)
            found |= dict(zip(own, engine.decode([batch[k] for k in own], asked), strict=True))
    return found


def _shown(edit: ShowReasoned, batch: Sequence[Conversation], replies: dict[int, Reply]) -> dict[int, Reply]:
    """The last step of reasoning, or that there is none."""
    found = {k: parsed(replies[k].text) for k in _meant(edit.when, batch) if k in replies}
    return {k: replace(replies[k], text=edit.failed if one is None else one.reply) for k, one in found.items()}


def captioned(engine: Engine, batch: Sequence[Conversation]) -> list[Conversation]:
    """Each request told in words: the engine's own caption of its images, then the request."""
    rows = [k for k, conversation in enumerate(batch) if conversation.has_image]
    asked = [batch[k].with_words(CAPTION_REQUEST) for k in rows]
    captions = engine.decode(asked, Sampling(CAPTION_TOKENS)) if asked else []
    told = [conversation.without_images() for conversation in batch]
    for k, caption in zip(rows, captions, strict=True):
        told[k] = told[k].rewritten(before=f"{caption.text}\n")
    return told


def _opened(engine: Engine) -> OpenEngine:
    assert isinstance(engine, OpenEngine), "targets that cannot be looked into refuse mends that do"
    return engine


def _meant(when: When, batch: Sequence[Conversation]) -> list[int]:
    return [k for k, conversation in enumerate(batch) if when == "always" or conversation.has_image]


def _declined(
    engine: OpenEngine, edit: RefuseWhen, batch: Sequence[Conversation], done: dict[int, Reply]
) -> dict[int, Reply]:
    """A fixed reply for every request whose refusal score is above the threshold."""
    rows = [k for k in _meant(edit.when, batch) if k not in done]
    if not rows:
        return {}
    scores = engine.lens([batch[k] for k in rows], edit.layers, edit.token_ids)
    refusal = Reply(edit.reply, "stop", 0, 0, 0.0)
    return {k: refusal for k, found in zip(rows, scores.tolist(), strict=True) if found > edit.threshold}


def _reviewed(
    engine: Engine, edit: ReviewReply, batch: Sequence[Conversation], replies: dict[int, Reply], sampling: Sampling
) -> dict[int, Reply]:
    """Second answers, from a caption, for replies in which the model itself finds harm."""
    rows = _meant(edit.when, batch)
    if not rows:
        return {}
    checks = [batch[k].with_words(edit.check.format(prompt=batch[k].prompt, reply=replies[k].text)) for k in rows]
    verdicts = engine.decode(checks, Sampling(CHECK_TOKENS))
    flagged = [k for k, said in zip(rows, verdicts, strict=True) if said.text.lower().startswith(edit.alarm.lower())]
    if not flagged:
        return {}
    asked = [batch[k].with_words(edit.caption.format(prompt=batch[k].prompt)) for k in flagged]
    captions = engine.decode(asked, Sampling(CAPTION_TOKENS))
    again = [
        batch[k].without_images().with_words(edit.again.format(caption=caption.text, prompt=batch[k].prompt))
        for k, caption in zip(flagged, captions, strict=True)
    ]
    return dict(zip(flagged, engine.decode(again, sampling), strict=True))


def _aligned(
    engine: OpenEngine, edit: AlignReply, batch: Sequence[Conversation], replies: dict[int, Reply], sampling: Sampling
) -> dict[int, Reply]:
    """The safest of some replies that begin safely, where prompt and reply both look unsafe."""
    rows = _meant(edit.when, batch)
    if not rows:
        return {}
    risky = _gate_scores(engine, edit.before, [batch[k] for k in rows])
    rows = [k for k, found in zip(rows, risky, strict=True) if found > 0]
    unsafe = _reply_scores(engine, edit, [batch[k] for k in rows], [replies[k].text for k in rows]) if rows else []
    rows = [k for k, found in zip(rows, unsafe, strict=True) if found > 0]
    if not rows:
        return {}
    drawn = replace(sampling, temperature=edit.temperature)
    best: dict[int, Reply] = {}
    for k in rows:  # one request at a time, so that its draws do not depend on the others
        found = engine.decode([replace(batch[k], lead=edit.lead)] * edit.candidates, drawn)
        scores = list(_reply_scores(engine, edit, [batch[k]] * len(found), [reply.text for reply in found]))
        best[k] = found[scores.index(min(scores))]
    return best


def _reply_scores(
    engine: OpenEngine, edit: AlignReply, batch: Sequence[Conversation], texts: Sequence[str]
) -> Sequence[float]:
    if edit.scorer:
        return _scorer(edit.scorer)(batch, texts)
    read = [replace(c.without_images(), lead=text) for c, text in zip(batch, texts, strict=True)]
    return _gate_scores(engine, edit.after, read)


def _gate_scores(engine: OpenEngine, gate: Gate, batch: Sequence[Conversation]) -> list[float]:
    site: Site = gate.site
    return score(gate, engine.reader.states(batch, [site])[site]).tolist()


def _scorer(name: str) -> ReplyScorer:
    found = {entry.name: entry for entry in entry_points(group="vlmend.scorers")}
    if name not in found:
        raise UnknownName(
            f"There is no scorer {name!r}.", f"Installed: {', '.join(found) or 'none'} (entry points vlmend.scorers)."
        )
    scorer: ReplyScorer = found[name].load()
    return scorer
