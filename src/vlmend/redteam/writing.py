"""A red team whose words a model writes: which goal is rewritten beside what, what is asked, what the writer learns.

Goals and carriers are chosen as by the search over templates (`search`), with the goal's own words as the only form. A
rewrite brings, after Arondight (Liu et al., arXiv 2407.15050) and curiosity-driven red teaming (arXiv 2402.19464),

    r = verdict + a (1 - SelfBLEU) + b (1 - cosine) - kl log(pi / pi_0) - entropy log pi

to the search with novelty, `verdict - kl log(pi / pi_0)` to that with reward alone; at random the writer learns
nothing. From the verdict is taken off what the bandit expected of this goal and carrier, which is no doing of the
words; verdicts and novelties are brought to mean 0 and deviation 1 over the round.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vlmend.redteam.novelty import Archive, Embed
from vlmend.redteam.search import Search, SearchKind, Weights, whitened
from vlmend.redteam.space import Space, Template, Try
from vlmend.redteam.writer import Writer

__all__ = ["FORM", "Draft", "Fate", "Writing"]

FORM = Template("writer", "{}")
"""The only form of a space in which a writer finds the words."""

Fate = Literal["asked", "repeat", "off_goal"]
"""What becomes of a rewrite. repeat: asked before, beside the same. off_goal: it no longer asks for the goal. These two
are not asked and are no part of the budget."""


@dataclass(frozen=True)
class Draft:
    """A rewrite, and what becomes of it.

    Attributes:
        place: The goal, and what comes with the words.
        words: The rewrite.
        tokens: As the writer drew it.
        fate: Whether it is asked.
    """

    place: Try
    words: str
    tokens: tuple[int, ...]
    fate: Fate


class Writing:
    """Proposes rewrites and learns from what came of them; a function of its seed and of the rewards alone.

    Args:
        kind: novelty, reward or random.
        space: Goals and carriers, with `FORM` as the only template.
        writer: It learns, but for the random search; what it had learnt before is forgotten.
        embed: Texts to unit vectors, for novelty and for how near a rewrite is to its goal.
        seed: Of its draws.
        weights: Of novelties and entropy.
    """

    def __init__(
        self, kind: SearchKind, space: Space, writer: Writer, embed: Embed, seed: int, weights: Weights = Weights()
    ) -> None:
        self._kind: SearchKind = kind
        self._space, self._writer, self._embed = space, writer, embed
        self._seed, self._weights = seed, weights
        writer.reset()
        self._places = Search(kind, space, embed, seed, weights, again=True)
        self._archive = Archive(embed)
        self._known: dict[tuple[Try, str], float] = {}
        self.rounds = 0

    @property
    def writer(self) -> Writer | None:
        """Who learns from rounds; None in a random search."""
        return None if self._kind == "random" else self._writer

    def propose(self, most: int) -> list[Draft]:
        """The drafts of the next round, so many of them."""
        places = self._places.propose(most)
        goals = [self._space.goals[one.goal].prompt for one in places]
        drawn = self._writer.draw(goals, random.Random(f"writer:{self._seed}:{self.rounds}").getrandbits(31))
        near = self._near(goals, [one.words for one in drawn])
        seen = set(self._known)
        drafts: list[Draft] = []
        for place, one, kept in zip(places, drawn, near, strict=True):
            fate: Fate = "off_goal" if not kept else "repeat" if (place, one.words) in seen else "asked"
            drafts.append(Draft(place, one.words, one.tokens, fate))
            if kept:
                seen.add((place, one.words))
        return drafts

    def learn(self, drafts: Sequence[Draft], rewards: Sequence[float], *, writer: bool = True) -> None:
        """What came of a round.

        Args:
            drafts: All of its drafts.
            rewards: Of those that were asked, in order: 1 for a find, 0 for none.
            writer: The writer learns from it, too; it may have done so in a run before.
        """
        asked = [one for one in drafts if one.fate == "asked"]
        self._known |= {(one.place, one.words): told for one, told in zip(asked, rewards, strict=True)}
        total = self.brought(drafts) if self._kind != "random" else np.zeros(len(drafts))
        self._places.learn([one.place for one in asked], rewards)
        if writer and self._kind != "random":
            goals = [self._space.goals[one.place.goal].prompt for one in drafts]
            entropy = self._weights.entropy if self._kind == "novelty" else 0.0
            self._writer.learn(goals, [one.tokens for one in drafts], torch.from_numpy(total).float(), entropy)
        self.rounds += 1

    def resume(self, drafts: Sequence[Draft], rewards: Sequence[float], *, writer: bool) -> None:
        """Take over a round of an earlier run."""
        for one in drafts:
            self._places.keep(one.place)
        self.learn(drafts, rewards, writer=writer)

    def brought(self, drafts: Sequence[Draft]) -> NDArray[np.float64]:
        """What each draft brought, less what was expected of its place; drafts become part of the archive in turn."""
        told = np.array([self._known.get((one.place, one.words), 0.0) for one in drafts])
        verdict = told - self._places.expected([one.place for one in drafts])
        if self._kind == "reward":
            return whitened(verdict)
        new = np.zeros((2, len(drafts)))
        for k, one in enumerate(drafts):
            if one.fate != "off_goal":
                new[:, k] = self._archive.by_words(one.words), self._archive.by_embedding([one.words])[0]
                self._archive.add(one.words)
        weights = self._weights
        return whitened(verdict) + weights.words * whitened(new[0]) + weights.embedding * whitened(new[1])

    def _near(self, goals: Sequence[str], words: Sequence[str]) -> list[bool]:
        """Whether each rewrite still asks for its goal: not empty, and near enough to it."""
        keep = self._writer.settings.keep
        if not keep:
            return [bool(one) for one in words]
        wanted, found = (np.asarray(self._embed(texts)) for texts in (list(goals), list(words)))
        cosines = (wanted * found).sum(1)
        return [bool(one) and bool(cosine >= keep) for one, cosine in zip(words, cosines, strict=True)]
