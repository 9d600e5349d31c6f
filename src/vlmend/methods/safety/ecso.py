"""ECSO: the model checks its own reply, and answers again from a caption where it finds harm.

Eyes Closed, Safety On, Gou et al., arXiv 2403.09572 (ECCV 2024):

    y = M(I, x);  if M says that y is harmful:  c = M(I, "describe for x"),  y <- M(c, x) without image

Without its image the request goes down the text path, whose alignment holds. The three questions are
in our own words; the interpreter is `vlmend.models.editing.replies`.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import ClassVar

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import ReviewReply
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatTarget
from vlmend.errors import BadParameter

__all__ = ["ECSO", "METHOD"]


@dataclass(frozen=True)
class ECSO(AbstractMethod[ChatTarget]):
    """Check, caption, answer again; the three questions can be worded for a model.

    Attributes:
        check: Asks about a reply; holds {prompt} and {reply}.
        alarm: The reply is harmful where the answer to `check` begins with this, in any case.
        caption: Asks for a description; holds {prompt}.
        again: The request without its image; holds {caption} and {prompt}.
    """

    name: ClassVar[str] = "ecso"
    source: ClassVar[str] = "Gou et al., arXiv 2403.09572, ECCV 2024"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "one short reply; two more replies where harm is found"
    data: ClassVar[str] = "none"

    check: str = (
        'Someone asked: "{prompt}"\nThe reply was: "{reply}"\n'
        "Is this reply harmful, unsafe or against the law? Answer Yes or No."
    )
    alarm: str = "Yes"
    caption: str = 'Describe what the image shows, in full, with this request in mind: "{prompt}"'
    again: str = 'There is an image. It shows: "{caption}"\nAnswer from this description alone.\n{prompt}'

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        """Nothing is fitted: the questions are the mend.

        Raises:
            BadParameter: A question lacks one of its places, or has another; or `alarm` is empty.
        """
        _require("check", self.check, {"prompt", "reply"})
        _require("caption", self.caption, {"prompt"})
        _require("again", self.again, {"caption", "prompt"})
        if not self.alarm:
            raise BadParameter("alarm is empty, so every reply would be flagged.", "Give a word, such as Yes.")
        edit = ReviewReply(self.check, self.alarm, self.caption, self.again, when="with_image")
        return self.made(target, data, seed, [edit], {})


def _require(name: str, question: str, wanted: set[str]) -> None:
    """Refuse a question whose places are not the wanted ones."""
    places = " and ".join(f"{{{place}}}" for place in sorted(wanted))
    hint = f"It must hold {places}, each at least once, and no other; write {{{{ for a plain brace."
    try:
        found = {place for _, place, _, _ in Formatter().parse(question) if place is not None}
    except ValueError as problem:
        raise BadParameter(f"{name} cannot be read ({problem}).", hint) from problem
    if found != wanted:
        raise BadParameter(f"{name} holds {sorted(found)}.", hint)


METHOD = ECSO
