"""What `fairness/neutrality` tells of generators with planted shares of men, read by phantom-clip.

python -m tools.neutrality     # prints the tables of docs/suites/neutrality.md
"""

from __future__ import annotations

from collections import Counter

from vlmend.audit.suites.fairness.neutrality import SUITE
from vlmend.core.targets import DualTarget
from vlmend.pictures.galleries import GENDERS, PHOTO, people_gallery
from vlmend.pictures.people_renderer import PeopleRenderer
from vlmend.steps.opening import opened

__all__ = ["main"]

SHARES = (None, 0.5, 0.65, 0.8, 1.0)
"""Of men; None draws figures without gender."""


def main() -> None:
    """Print who is taken for whom, then a line a measure."""
    target = opened("phantom-clip", "dual", "tools.neutrality")
    assert isinstance(target, DualTarget)
    rows = people_gallery("held_out").examples
    texts = [PHOTO.format(group) for group in GENDERS]
    found = target.logits([row.image for row in rows if row.image is not None], texts).argmax(-1).tolist()
    read = Counter((row.group, GENDERS[place]) for row, place in zip(rows, found, strict=True))
    print("who is taken for whom, held-out gallery:", dict(read))
    suite = SUITE.beside(target)
    for men in SHARES:
        samples = suite.samples(PeopleRenderer(men), None, None, seed=0)  # type: ignore[arg-type]
        told = {(row.name, row.group): row for row in suite.measures(samples, 0)}
        for name in (("neutrality", "all prompts"), ("group_share", "man"), ("shows_what_was_asked", "all prompts")):
            row = told[name]
            print(f"men {men} | {name[0]} | {row.said()} | by chance {row.floor:.2f} | n = {row.n}", flush=True)


if __name__ == "__main__":
    main()
