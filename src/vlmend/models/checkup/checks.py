"""What a loaded model is made of, and whether it does what vlmend needs: the findings of `vlmend doctor`.

Nothing here stops at the first trouble: a check that fails is a finding with its reason. Hook-free export is not
asked about here, since export builds on this layer; the command line adds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.edits import AddVector, ContrastLogits, ContrastShift, Edit, LoadAdapter, OtherView, Tokens, When
from vlmend.core.images import blank_image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import VlmendError
from vlmend.models.checkup.facts import FACTS, SEEN, TEXT, Look, quantisation, request
from vlmend.models.vlm import VLM

__all__ = ["Finding", "checkup", "constant_view"]

GREEDY = Sampling(max_new_tokens=8)
CLOSE = 1e-5
"""Largest difference of logits, as a share of the largest logit, that float32 rounding explains."""
ROUNDINGS = 8
"""For half precision: that many times the dtype's own rounding."""


@dataclass(frozen=True)
class Finding:
    """One line of a check-up.

    Attributes:
        part: `structure`, `words`, `images`, `running`, `live` or `supported`.
        name: What was looked at.
        value: What was found, or why the check failed.
        ok: Passed, failed, or None where there is nothing to pass.
    """

    part: str
    name: str
    value: str
    ok: bool | None = None


class _No(Exception):
    """A check that was made and not passed; the message is the finding."""


@torch.inference_mode()
def checkup(vlm: VLM) -> list[Finding]:
    """Look at a model, and try it on one text-only and one image request.

    Costs some 75 short forward calls (75 on a LLaVA). The model is unchanged.
    """
    looks = [(part, name, look, None) for part, facts in FACTS.items() for name, look in facts.items()]
    tries = [(part, name, look, True) for part, checks in CHECKS.items() for name, look in checks.items()]
    return [_told(vlm, *one) for one in (*looks, *tries)]


def constant_view(vlm: VLM) -> VLM:
    """The model under a constant edit of every token after every block: what export folds."""
    return _pushed(vlm, range(vlm.layers), "all", "always")


def _told(vlm: VLM, part: str, name: str, look: Look, passed: bool | None) -> Finding:
    """One finding, whatever happens; out of memory and bugs of a model's own code included."""
    try:
        return Finding(part, name, look(vlm), passed)
    except (_No, VlmendError) as problem:
        return Finding(part, name, str(problem), False)
    except Exception as problem:
        first = next(iter(str(problem).strip().splitlines()), "")
        return Finding(part, name, f"failed with {type(problem).__name__}: {first}", False)


def _reached(vlm: VLM) -> str:
    before = vlm.vision.calls
    vlm.logits([request(vlm)])
    return f"{vlm.vision.calls - before} call(s) for one request"


def _seen(vlm: VLM) -> str:
    first, second = (vlm.logits([Conversation.ask(SEEN, noise_image(vlm.image_side, seed))]) for seed in (1, 2))
    moved = _largest(first, second)
    if moved == 0:
        raise _No("two different pictures give the same logits")
    return f"two different pictures move the logits by up to {moved:.2g}"


def _text_only(vlm: VLM) -> str:
    asked = [Conversation.ask(TEXT)]
    rows, before = vlm.reader.rows(asked, vlm.reader.inputs(asked)), vlm.vision.calls
    vlm.logits(asked)
    if rows.image.any() or vlm.vision.calls > before:
        raise _No("a request without an image holds image tokens or calls the vision tower")
    return "no image token, no call of the tower"


def _system(vlm: VLM) -> str:
    words = "Answer in one word."
    (text,) = vlm.reader.rendered([Conversation((Turn("system", words), Turn("user", TEXT)))])
    if words not in text:
        raise _No("the template leaves the system turn out")
    return "taken"


def _ends(vlm: VLM) -> str:
    """A reply ends at either; where a checkpoint's files disagree, whoever serves it by one of them runs past turns."""
    told = vlm.model.generation_config.eos_token_id
    own = vlm.processor.tokenizer.eos_token_id
    if own not in (told if isinstance(told, list) else [told]):
        raise _No(f"generation_config ends a reply at {told}, the tokenizer at {own}; vlmend ends it at either")
    return "the same in generation_config and tokenizer"


def _batched(vlm: VLM) -> str:
    pair = _pair(vlm)
    together, alone = vlm.logits(pair), torch.cat([vlm.logits([one]) for one in pair])
    off, scale = _largest(together, alone), float(alone.abs().max())
    told = f"logits differ by up to {off:.2g}, the largest is {scale:.2g}"
    if off > max(1.0, scale) * max(CLOSE, ROUNDINGS * torch.finfo(vlm.model.dtype).eps):
        raise _No(f"{told}; {_why_uneven(vlm)}")
    return told


def _why_uneven(vlm: VLM) -> str:
    quantised = quantisation(vlm)
    if quantised != "none":
        return f"quantised products depend on the batch ({quantised})"
    return vlm.anatomy.alone or "results depend on the company of a request"


def _same_tokens(vlm: VLM) -> str:
    pair = _pair(vlm)
    together, alone = vlm.generate(pair, GREEDY), [vlm.generate([one], GREEDY)[0] for one in pair]
    if [reply.text for reply in together] != [reply.text for reply in alone]:
        raise _No("the replies of a batch are not those of each request alone")
    return f"{sum(reply.new_tokens for reply in together)} tokens of 2 requests"


def _hooks(vlm: VLM) -> str:
    """Capture at every block; an edit must arrive at the first, a middle and the last one as it is."""
    sites = [Site("language", layer) for layer in range(vlm.layers)]
    asked = [request(vlm)]
    states = vlm.hidden(asked, sites)
    if len(states) < len(sites):
        raise _No(f"states came from {len(states)} of {len(sites)} blocks only")
    for layer in sorted({0, vlm.layers // 2, vlm.layers - 1}):
        if _largest(_pushed(vlm, [layer], "last", "always").hidden(asked, [sites[layer]])[sites[layer]],
                    states[sites[layer]]) == 0:  # fmt: skip
            raise _No(f"an edit after block {layer} did not move its output")
    return f"states from {len(states)} of {len(sites)} blocks, edits arrive"


def _constant(vlm: VLM) -> str:
    """Image requests move, text-only ones stay bit for bit."""
    view = _pushed(vlm, range(vlm.layers), "last", "with_image")
    moved, text = _moved(vlm, view)
    if moved == 0 or text != 0:
        raise _No(f"the edit moves image requests by {moved:.2g} and text-only ones by {text:.2g}, which must be 0")
    return "image requests are edited, text-only ones stay bit for bit"


def _sample_level(vlm: VLM) -> str:
    edit = ContrastShift(tuple(range(vlm.layers)), blank_image(vlm.image_side))
    return _worked(vlm, edit, "the shift of a single request is read and taken out")


def _adapters(vlm: VLM) -> str:
    parts: list[tuple[str, Any]] = list(vlm.anatomy.blocks[0].named_modules())
    name, module = next((name, part) for name, part in parts if isinstance(part, nn.Linear))
    path = f"{vlm.anatomy.blocks_path}.0.{name}"
    maker = torch.Generator().manual_seed(0)
    down = torch.randn(1, module.in_features, generator=maker)
    up = torch.randn(module.out_features, 1, generator=maker)
    return _worked(vlm, LoadAdapter(path, down, up), f"tried at {path}")


def _contrasted(vlm: VLM) -> str:
    return _worked(vlm, ContrastLogits((OtherView("Be careful. "),), 2.0), "a second read with a principle is mixed in")


def _lens(vlm: VLM) -> str:
    score = vlm.lens([request(vlm)], [vlm.layers - 1], [0])
    return f"the final norm was found (score {float(score[0]):.2g})"


def _worked(vlm: VLM, edit: Edit, told: str) -> str:
    moved, _ = _moved(vlm, vlm.with_mend(_mend(vlm, [edit])))
    if moved == 0:
        raise _No("it changes nothing")
    return told


def _moved(vlm: VLM, view: VLM) -> tuple[float, float]:
    """How far a view moves the logits of the image and of the text-only request."""
    text, seen = _pair(vlm)
    return _largest(view.logits([seen]), vlm.logits([seen])), _largest(view.logits([text]), vlm.logits([text]))


def _pushed(vlm: VLM, layers: Iterable[int], tokens: Tokens, when: When) -> VLM:
    """A view with random numbers of size 1 added after each of these blocks: no rounding swallows them."""
    maker = torch.Generator().manual_seed(0)
    vectors = {layer: torch.randn(vlm.anatomy.width, generator=maker) for layer in layers}
    return vlm.with_mend(_mend(vlm, [AddVector(Site("language", k), v, tokens, when) for k, v in vectors.items()]))


def _mend(vlm: VLM, edits: Sequence[Edit]) -> Mend:
    card = MendCard("checkup", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "a probe, of no use else")
    return Mend(tuple(edits), card)


def _pair(vlm: VLM) -> list[Conversation]:
    return [Conversation.ask(TEXT), request(vlm)]


def _largest(first: Tensor, second: Tensor) -> float:
    """Raises `_No` where it is no number: NaN passes no comparison."""
    largest = float((first - second).abs().max())
    if not math.isfinite(largest):
        raise _No("it gives numbers that are NaN or infinite; load it with --dtype bfloat16 or float32")
    return largest


CHECKS: dict[str, dict[str, Look]] = {
    "live": {
        "images reach the tower": _reached,
        "images change the answer": _seen,
        "text-only is text only": _text_only,
        "system turn": _system,
        "end tokens": _ends,
        "batch and single agree": _batched,
        "same greedy tokens": _same_tokens,
        "hooks fire": _hooks,
    },
    "supported": {
        "dataset-level mends (CMRM)": _constant,
        "sample-level mends": _sample_level,
        "adapters": _adapters,
        "contrasted logits": _contrasted,
        "refusal lens": _lens,
    },
}
"""Part and name of everything that is tried."""
