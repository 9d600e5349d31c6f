"""What dual encoders, pipelines and models that give replies alone are, each tried briefly: `vlmend doctor` of these.

Nothing stops at the first trouble: a check that fails is a finding with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.images import noise_image
from vlmend.core.targets import ChatTarget, DrawTarget, DualTarget
from vlmend.models.checkup.checks import Finding
from vlmend.models.checkup.facts import SEEN, TEXT

__all__ = ["checkup_draw", "checkup_dual", "checkup_replies"]

SHORT = Sampling(max_new_tokens=8)
CLOSE = 1e-4
"""Largest difference of embeddings of length 1 that rounding explains."""

Check = tuple[str, Callable[[], tuple[str, bool]]]


def checkup_dual(target: DualTarget) -> list[Finding]:
    """Try a dual encoder on two pictures and two texts."""
    pictures, texts = [noise_image(64, seed) for seed in (1, 2)], ["a picture of noise", "a blue cat"]

    def told_apart() -> tuple[str, bool]:
        first, second = target.embed_images(pictures)
        off = float((first - second).abs().max())
        return f"two different pictures move the embedding by up to {off:.2g}", off > 0

    def alike() -> tuple[str, bool]:
        off = float((target.embed_images(pictures)[:1] - target.embed_images(pictures[:1])).abs().max())
        return f"embeddings differ by up to {off:.2g}", off < CLOSE

    def ranks() -> tuple[str, bool]:
        rows, columns = target.logits(pictures, texts).shape
        return f"{rows} pictures against {columns} texts", (rows, columns) == (2, 2)

    checks = [("images change the answer", told_apart), ("batch and single agree", alike), ("ranks texts", ranks)]
    return [Finding("structure", "kind", "dual encoder: it ranks images and texts"), *_tried(checks)]


def checkup_draw(target: DrawTarget) -> list[Finding]:
    """Have a pipeline draw two prompts, twice and with another seed."""
    prompts = ["a photo of a cat", "a photo of a hammer"]
    drawn = cache(lambda *seeds: target.draw(prompts, seeds))

    def draws() -> tuple[str, bool]:
        began = time.monotonic()
        made = [picture.decode() for picture in drawn(1, 1) if picture is not None]
        sizes = sorted({picture.size for picture in made})
        return f"{len(made)} pictures of {sizes} pixels in {time.monotonic() - began:.1f} s", len(made) == len(prompts)

    def repeats() -> tuple[str, bool]:
        again = target.draw(prompts[:1], [1])
        return "a seed alone gives what it gives beside others", again[0] == drawn(1, 1)[0]

    def listens() -> tuple[str, bool]:
        return "two prompts give two pictures from one seed", drawn(1, 1)[0] != drawn(1, 1)[1]

    def varies() -> tuple[str, bool]:
        return "another seed gives another picture", drawn(1, 1)[0] != drawn(2, 2)[0]

    checks = [("draws", draws), ("same seed, same picture", repeats), ("reads the prompt", listens), ("seeds", varies)]
    return [Finding("structure", "kind", "text-to-image pipeline: it draws what a prompt says"), *_tried(checks)]


def checkup_replies(target: ChatTarget) -> list[Finding]:
    """Ask a model three short requests: as text, beside an image, after a system turn."""
    side = target.image_side
    asked: dict[str, Conversation] = {
        "answers": Conversation.ask(TEXT),
        "image taken": Conversation.ask(SEEN, noise_image(side, 0)),
        "system turn": Conversation((Turn("system", "Answer in one word."), Turn("user", TEXT))),
    }

    def replied(conversation: Conversation) -> tuple[str, bool]:
        began = time.monotonic()
        (reply,) = target.generate([conversation], SHORT)
        return f"{reply.new_tokens} tokens in {time.monotonic() - began:.1f} s", bool(reply.text.strip())

    checks: list[Check] = [(name, lambda asking=asking: replied(asking)) for name, asking in asked.items()]
    return [Finding("structure", "kind", "gives replies only: audits, and mends of words"), *_tried(checks)]


def _tried(checks: Sequence[Check]) -> list[Finding]:
    findings: list[Finding] = []
    for name, check in checks:
        try:
            value, passed = check()
        except Exception as problem:
            value, passed = f"{type(problem).__name__}: {problem}", False
        findings.append(Finding("live", name, value, passed))
    return findings
