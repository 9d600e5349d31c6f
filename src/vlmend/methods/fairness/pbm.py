"""PBM, post-hoc bias mitigation: what a text retrieves is reordered so that groups share the first places.

Kong, Yuan, Hao, Henao, NeurIPS 2023 (arXiv 2305.19329). The encoder itself tells each picture's group by the prompt
that it is most like. Then, round by round, the best picture left of each group is taken, in a random order within the
round. A query that names a group keeps its order. The encoder is untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import Rerank
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadData
from vlmend.pictures.galleries import GENDERS, PHOTO

__all__ = ["METHOD", "Pbm"]

WORDS = {
    "man": ("men", "male", "males", "boy", "boys", "gentleman", "father", "he", "his"),
    "woman": ("women", "female", "females", "girl", "girls", "lady", "mother", "she", "her"),
}
"""Further words by which a query asks for one of them."""


@dataclass(frozen=True)
class Pbm(AbstractMethod[DualTarget]):
    """Groups share the first places of what is retrieved."""

    name: ClassVar[str] = "pbm"
    source: ClassVar[str] = "Kong et al., arXiv 2305.19329, NeurIPS 2023"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; the groups' prompts are embedded to order a gallery"
    data: ClassVar[str] = "a prompt for each group"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, Any]] = {}

    def builtin(self) -> Dataset:
        """Men and women."""
        rows = [Example(one, PHOTO.format(one), None, one, answers=WORDS[one]) for one in GENDERS]
        return Dataset("genders", tuple(rows), "Apache-2.0")

    def sample_data(self) -> Dataset:
        """The same."""
        return self.builtin()

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Take the prompt of each group, and its name and answers as the words by which queries ask for it.

        Raises:
            BadData: There are fewer than two groups, or a group has several prompts.
        """
        rows = [row for row in data.examples if row.image is None and row.prompt and row.group]
        groups = tuple(row.group for row in rows)
        if len(set(groups)) < 2 or len(set(groups)) < len(groups):
            raise BadData(
                f"{data.name} has {len(rows)} prompts for {len(set(groups))} groups.",
                "Pass two or more rows without image, one for each group: its name as category, a prompt that its "
                "pictures are like, and further words for it as answers.",
            )
        named = tuple(dict.fromkeys(word for row in rows for word in (row.group, *row.answers)))
        return self.made(target, data, seed, [Rerank(groups, tuple(row.prompt for row in rows), named)], {})


METHOD = Pbm
