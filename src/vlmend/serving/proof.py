"""Did the mends of a view act on a request? What an answer says of it, and what keeps an answer back.

Edits of states are counted where they act (`Reply.fired`). An edit that has no gate, is meant for a request and never
acted on it is an error, not an answer. Words and pictures are compared before and after. What changes weights, logits
or whole replies is installed around every call of the view and leaves no count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmend.core.conversation import Conversation, Reply
from vlmend.core.edits import Edit
from vlmend.core.sites import Site
from vlmend.core.state_edits import ActivationEdit, ContrastShift, Tokens
from vlmend.errors import ModelProblem
from vlmend.models.editing.states import gate_of
from vlmend.models.vlm import VLM

__all__ = ["Served", "Shown", "check_fired", "proof_of", "unfired"]


@dataclass(frozen=True)
class Shown:
    """A view as clients see it, wherever its model is.

    Attributes:
        name: `base`, or `base+NAME`.
        id: Of the view.
        of: Name of the model.
        model_digest: Its fingerprint.
        mends: Method and digest of each.
    """

    name: str
    id: str
    of: str
    model_digest: str
    mends: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, eq=False)
class Served:
    """A view under the name by which clients ask for it.

    Attributes:
        name: `base`, or `base+NAME`.
        view: What answers.
    """

    name: str
    view: VLM

    @property
    def shown(self) -> Shown:
        view = self.view
        return Shown(self.name, view.id, view.name, view.model_digest, tuple(_mends_of(view)))


def unfired(edits: Sequence[Edit], asked: Conversation, fired: Mapping[str, int], new_tokens: int) -> list[str]:
    """Sites of edits of states that should have acted on a request and have not.

    Args:
        edits: Of the view.
        asked: The request in the words and with the images that the mends give it.
        fired: How often its states were edited, by site.
        new_tokens: Of its reply so far; the first one follows from the prompt alone.
    """
    missing: list[str] = []
    for edit in edits:
        if edit.when != "always" and not asked.has_image:
            continue
        if isinstance(edit, ContrastShift) and _covered(edit.tokens, asked, new_tokens):
            sites = [str(Site("language", layer)) for layer in edit.layers]
            missing += [] if any(fired.get(site) for site in sites) else sites[:1]
        elif isinstance(edit, ActivationEdit) and gate_of(edit) is None and _covered(edit.tokens, asked, new_tokens):
            missing += [] if fired.get(str(edit.site)) else [str(edit.site)]
    return missing


def check_fired(view: VLM, asked: Conversation, fired: Mapping[str, int], new_tokens: int) -> None:
    """Hold an answer back that is none of the mended model; `asked` is the request as its mends put it.

    Raises:
        ModelProblem: An edit that is meant for the request never acted on it; what came is no answer of the mended
            model.
    """
    if any("reply" in edit.touches for edit in view.edits):  # the last reading may be of another request
        return
    missing = unfired(view.edits, asked, fired, new_tokens)
    if missing:
        raise ModelProblem(
            f"The mend never acted at {missing[0]}, so this would be an answer of the base model; it is held back.",
            "Look at vlmend doctor: this family may pass the hooks of its blocks by.",
        )


def proof_of(view: VLM, conversation: Conversation, asked: Conversation, reply: Reply) -> dict[str, Any]:
    """What an answer says of the mends that made it; `asked` is the request as they put it."""
    mends = _mends_of(view)
    meant = [edit for edit in view.edits if edit.when == "always" or conversation.has_image]
    proof = {"model_digest": view.model_digest, "mends": mends, "meant": bool(meant), "fired": dict(reply.fired)}
    if not meant:
        return proof
    kinds = sorted({type(edit).__name__ for edit in meant})
    return proof | {"edits": kinds, "request_changed": asked.digest != conversation.digest}


def _covered(tokens: Tokens, asked: Conversation, new_tokens: int) -> bool:
    """Whether a scope covers any position that was read."""
    if tokens == "image":
        return asked.has_image
    return tokens != "reply" or new_tokens > 1


def _mends_of(view: VLM) -> list[dict[str, str]]:
    return [{"method": mend.card.method, "digest": mend.digest} for mend in view.mends]
