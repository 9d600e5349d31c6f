"""What is served: the bare model and each of its mends, by the names that clients ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Target, check_access
from vlmend.errors import UsageError
from vlmend.models.decoding.live import forget_requests
from vlmend.serving.proof import Served, check_fired

if TYPE_CHECKING:
    from vlmend.models.vlm import VLM

__all__ = ["BASE", "views_of"]

BASE = "base"
"""The name of the model without mends."""
HARMLESS = "Say: ok."


def views_of(model: Target, mends: Mapping[str, Mend], *, base: bool = True) -> dict[str, Served]:
    """What is served, by name; each has answered a request with and one without an image, and its mends acted.

    Raises:
        UsageError, NeedsAccess: The model does not answer, cannot be looked into, or there is nothing to serve.
        MendMismatch, ModelProblem: A mend is of another model, or never acts.
    """
    check_access(model, "serve", "chat", "weights")
    bare = cast("VLM", model)
    views = {BASE: bare} if base else {}
    views |= {f"{BASE}+{name}": bare.with_mend(mend) for name, mend in mends.items()}
    if not views:
        raise UsageError("Without the base there is nothing to serve.", "Give a --mend, or leave --no-base out.")
    for view in views.values():
        for image in (None, blank_image(bare.image_side)):
            one = Conversation.ask(HARMLESS, image)
            (reply,) = view.generate([one], Sampling(2))
            check_fired(view, view.rewritten([one])[0], reply.fired, reply.new_tokens)
    forget_requests(bare)
    return {name: Served(name, view) for name, view in views.items()}
