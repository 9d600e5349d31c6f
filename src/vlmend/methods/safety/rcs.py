"""RCS: any mend of states, only for requests that stand nearer to harmful than to benign ones in a learnt projection.

Representational contrastive scoring, arXiv 2512.12069 (ACL 2026; its code has no licence, this is from the paper). With
h the state of one layer at the last prompt position and z = P h, P learnt to bring each kind together:

    mahalanobis:  score = d_benign(z) - d_harmful(z),   d(z) = sqrt((z - mean)^T covariance^-1 (z - mean)) of each kind
    knn:          score = distance to the k-th nearest benign z - distance to the k-th nearest harmful z

The edits of another method act where score + caution > 0. One distance alone calls whatever is new harmful; the
difference does not, since a new kind of benign request is far from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from vlmend import registry
from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import ActivationEdit, AnyGate, MahalanobisGate, NeighbourGate
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadData, BadParameter
from vlmend.methods.beside import read_beside
from vlmend.methods.reading import anchors_of
from vlmend.methods.safety.cmrm_gated import best_layer, fit_gate

__all__ = ["METHOD", "RCS", "contrastive_gate", "learnt_projection"]

STEPS, RATE, DECAY = 200, 3e-2, 1e-2
"""Of the projection's training, full batches."""

LABELS: tuple[Literal["harmful", "benign"], ...] = ("harmful", "benign")

Distance = Literal["mahalanobis", "knn", "linear"]


@dataclass(frozen=True)
class RCS(AbstractMethod):
    """Another method's mend behind a contrastive gate.

    Attributes:
        mend: The method and its settings, as `cmrm alpha=0.6 mode=increment`; its edits must be edits of states without
            a gate of their own. Where it has `layers` and they are not set, it acts from the gate's layer on.
        distance: `mahalanobis`, `knn`, or for comparison `linear`: the log-odds of the probe of `cmrm_gated`.
        caution: Added to the score: above 0 more requests are mended, below 0 fewer.
        rank: Width of the projection; the states' where that is less.
        neighbours: k of `knn`.
        gate_layer: Layer of the gate; unless given, the one where a linear probe tells the anchors apart best in
            cross-validation, the earliest of equals.
        corrupt: The content-free image, one of three images that anchors are read beside.
    """

    name: ClassVar[str] = "rcs"
    source: ClassVar[str] = "Representational contrastive scoring, arXiv 2512.12069, ACL 2026"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none; those of the mend behind the gate"
    data: ClassVar[str] = "harmful and harmless anchor requests"
    quick: ClassVar[Mapping[str, Any]] = {"caution": 1000.0, "gate_layer": 0}

    mend: str = "cmrm"
    distance: Distance = "mahalanobis"
    caution: float = 0.0
    rank: int = 256
    neighbours: int = 5
    gate_layer: int | None = None
    corrupt: Corrupt = "white"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.neighbours < 1:
            raise BadParameter(f"rank={self.rank} and neighbours={self.neighbours} give no distance.", "Use 1 or more.")
        self._inner(0, 1)

    def sample_data(self) -> Dataset:
        """Four requests of each kind."""
        rows = (Example(f"{label} {k}", f"{label} request, the {k}", label) for label in LABELS for k in range(4))
        return Dataset("requests", tuple(rows))

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Fit the gate on anchors beside three kinds of image, and the mend behind it.

        Raises:
            BadData: The data lacks harmful or harmless anchors, or holds too few of one kind.
            BadParameter: The model has no such layer, or the mend cannot stand behind a gate.
        """
        harmful, benign = anchors_of(data, "harmful"), anchors_of(data, "benign")
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        states = read_beside(target, (*harmful, *benign), image, seed)
        labels = torch.tensor([True] * len(harmful) + [False] * len(benign))
        layer = best_layer(states[0], labels) if self.gate_layer is None else self.gate_layer
        if not 0 <= layer < target.layers:
            raise BadParameter(
                f"gate_layer={layer} does not fit a model of {target.layers} layers.",
                f"They count from 0 to {target.layers - 1}.",
            )
        gate = contrastive_gate(
            Site("language", layer), states[:, :, layer], labels, distance=self.distance, rank=self.rank,
            neighbours=self.neighbours, caution=self.caution, seed=seed,
        )  # fmt: skip
        inner = self._inner(layer, target.layers).fit(target, data, seed=seed)
        edits: list[ActivationEdit] = []
        for edit in inner.edits:
            if not isinstance(edit, ActivationEdit) or edit.gate is not None:
                raise BadParameter(
                    f"mend={self.mend!r} makes a {type(edit).__name__}, which cannot wait for this gate.",
                    "Use a method that edits states at a place and has no gate of its own, such as cmrm or alphasteer.",
                )
            edits.append(replace(edit, gate=gate))
        return self.made(target, data, seed, edits, inner.card.dose)

    def _inner(self, layer: int, depth: int) -> AbstractMethod[Any]:
        """The method behind the gate, from the gate's layer on.

        Raises:
            BadParameter, UnknownName, UsageError: It cannot be read, or there is none of that name.
        """
        name, *settings = self.mend.split() or [""]
        if name in ("", self.name) or any("=" not in setting for setting in settings):
            raise BadParameter(
                f"mend={self.mend!r} cannot be read.", "Write a method and its settings: cmrm alpha=0.6 mode=increment."
            )
        parameters = dict(setting.split("=", 1) for setting in settings)
        made = registry.make_method(name, parameters)
        if "layers" in {field.name for field in fields(made)} and "layers" not in parameters:
            return registry.make_method(name, parameters | {"layers": f"{layer}-{depth - 1}"})
        return made


def contrastive_gate(
    site: Site, states: Float[Tensor, "image anchor width"], labels: Bool[Tensor, " anchor"], *, distance: Distance,
    rank: int, neighbours: int, caution: float, seed: int,
) -> AnyGate:  # fmt: skip
    """Learn the projection on every other anchor, and what lies near in it on the rest.

    A `linear` gate needs neither, and is fitted on all. On the anchors that the projection was learnt on the two
    kinds stand further apart than on others, so distances are not taken from those.

    Args:
        labels: Which anchors are harmful.

    Raises:
        BadData: Fewer than four anchors of one kind.
    """
    counts = int(labels.sum()), int((~labels).sum())
    if min(counts) < 4:
        raise BadData(
            f"{counts[0]} harmful and {counts[1]} harmless anchors are too few for a learnt projection and distances.",
            "Pass four or more of each with --data.",
        )
    if distance == "linear":
        gate = fit_gate(site.layer, states.flatten(0, 1), labels.repeat(len(states)))
        return replace(gate, bias=gate.bias + caution)
    place = torch.zeros(len(labels), dtype=torch.long)
    for kind in (labels, ~labels):
        place[kind] = torch.arange(int(kind.sum()))
    learning = place % 2 == 0
    project = learnt_projection(
        states[:, learning].flatten(0, 1), labels[learning].repeat(len(states)), min(rank, states.shape[2]), seed
    )
    z = states[:, ~learning] @ project.T
    harmful, benign = z[:, labels[~learning]].flatten(0, 1), z[:, ~labels[~learning]].flatten(0, 1)
    if distance == "knn":
        return NeighbourGate(
            site, project, normalize(benign, dim=-1), normalize(harmful, dim=-1),
            min(neighbours, len(benign), len(harmful)), caution,
        )  # fmt: skip
    (middle, spread), (other, far) = _gaussian(benign), _gaussian(harmful)
    return MahalanobisGate(site, project, middle, spread, other, far, caution)


def learnt_projection(
    states: Float[Tensor, "state width"], labels: Bool[Tensor, " state"], rank: int, seed: int
) -> Float[Tensor, "rank width"]:
    """A linear map under which each state is nearer to its own kind's mean than to the other's.

    Cross-entropy of minus the squared distances to the two means (prototypes), on standardised states, Adam with
    decay; ours, where the paper has a small network. It starts from random directions, so what tells nothing of harm
    is kept and only weighs less.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = states.std(0).clamp_min(torch.finfo(states.dtype).eps)
    inputs = (states - states.mean(0)) / scale
    project = torch.randn(rank, states.shape[1], generator=generator) / states.shape[1] ** 0.5 / rank**0.5
    with torch.enable_grad():
        project.requires_grad_()
        optimiser = torch.optim.AdamW([project], lr=RATE / rank**0.5, weight_decay=DECAY)
        for _ in range(STEPS):
            z = inputs @ project.T
            means = torch.stack([z[~labels].mean(0), z[labels].mean(0)])
            loss = cross_entropy(-(z[:, None] - means).square().sum(-1), labels.long())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return (project / scale).detach()


def _gaussian(z: Float[Tensor, "state rank"]) -> tuple[Float[Tensor, " rank"], Float[Tensor, "rank rank"]]:
    """Mean and inverse root of the covariance, shrunk after Ledoit and Wolf (2004), in float64."""
    rows = z.double()
    scale = rows.var(0).mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    values, vectors = torch.linalg.eigh(torch.from_numpy(ledoit_wolf((rows / scale).numpy())[0]))
    root = vectors / values.clamp_min(torch.finfo(torch.float64).eps).sqrt() @ vectors.T / scale
    return z.mean(0), root.float()


METHOD = RCS
