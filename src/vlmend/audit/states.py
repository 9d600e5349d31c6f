"""Where last-token states lie before and after a mend, for the picture in the report.

The basis is fitted once on the unmended states (text and image) of a layer; mended states are only
projected. Refitting on the mended set would make any method look good (arXiv 2410.09047, analysis).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from vlmend.audit.suite import builtin_picture, chosen
from vlmend.core.conversation import Conversation
from vlmend.core.files import write_json
from vlmend.core.sites import Site
from vlmend.core.targets import ChatStates

__all__ = ["centre_distance", "write_states"]

COUNT = 60
BATCH = 20


def write_states(mended: ChatStates, file: Path, count: int = COUNT) -> None:
    """Write `states.json`: per layer (first, middle, last), 2-D points and centre distances."""
    base = mended.bare
    text = [Conversation.ask(request.prompt) for request in chosen("harmful", count)]
    seen = [Conversation.ask(r.prompt, builtin_picture(k)[1]) for k, r in enumerate(chosen("harmful", count))]
    sites = [Site("language", layer) for layer in sorted({0, base.layers // 2, base.layers - 1})]
    sets = {"text": _states(base, text, sites), "image": _states(base, seen, sites)}
    sets["mended"] = _states(mended, seen, sites)
    layers = [_layer(site, {kind: states[site] for kind, states in sets.items()}) for site in sites]
    write_json(file, {"count": len(text), "layers": layers})


def centre_distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """|mean - mean| over the mean spread within the two sets (root mean square distance to the mean)."""
    spread = np.mean([np.sqrt(((s - s.mean(0)) ** 2).sum(1).mean()) for s in (first, second)])
    return float(np.linalg.norm(first.mean(0) - second.mean(0)) / spread)


def _layer(site: Site, sets: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    basis = PCA(2, random_state=0).fit(np.concatenate([sets["text"], sets["image"]]))
    points = {kind: basis.transform(states).round(4).tolist() for kind, states in sets.items()}
    distances = {
        "before": centre_distance(sets["text"], sets["image"]),
        "after": centre_distance(sets["text"], sets["mended"]),
    }
    return {"layer": site.layer, **distances, **points}


def _states(
    target: ChatStates, asked: Sequence[Conversation], sites: Sequence[Site]
) -> dict[Site, NDArray[np.float32]]:
    batches = [target.hidden(asked[k : k + BATCH], sites) for k in range(0, len(asked), BATCH)]
    return {site: np.concatenate([batch[site].numpy() for batch in batches]) for site in sites}
