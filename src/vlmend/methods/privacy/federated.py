"""Federated fine-tuning: pictures stay with their clients, adapters travel; FedAvg or FedProx.

McMahan et al. 2017 (arXiv 1602.05629), Li et al. 2020 (arXiv 1812.06127). Each round every client gets the parameters,
takes a few steps on its own pairs (symmetric InfoNCE, negatives from its own rows alone) and sends them back; the
server takes the mean, weighted by rows. The clients are simulated: rows are dealt over them by Dirichlet shares of
their categories, or texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualWeights, Kind
from vlmend.errors import BadData, BadParameter
from vlmend.methods.contrastive import embedded, same
from vlmend.pictures.galleries import some_objects, training_objects
from vlmend.pictures.named import NamedPictures, pairs_in, text_of
from vlmend.training.batches import chosen
from vlmend.training.federated import Client, Rounds, dirichlet_split, federate
from vlmend.training.losses import contrastive_loss
from vlmend.training.twin import How, Twin, twin_of

__all__ = ["METHOD", "Federated"]


@dataclass(frozen=True)
class Federated(AbstractMethod[DualWeights]):
    """Rounds of local steps and a weighted mean over clients.

    Attributes:
        clients: Over which the rows are dealt.
        rounds, local: Rounds, and steps of a client in each.
        rate: Of plain gradient descent.
        batch: Pictures a step, of the client's own.
        alpha: Of the Dirichlet shares of categories, or of texts: 0.1 gives a client few, 1000 deals all alike.
        mu: Pull of FedProx towards what the server sent; 0 is FedAvg.
        train: `adapters`: low-rank products beside linear modules. `weights`: both towers' own.
        rank: Of the adapters.
    """

    name: ClassVar[str] = "federated"
    source: ClassVar[str] = "McMahan et al., arXiv 1602.05629; Li et al., arXiv 1812.06127"
    needs: ClassVar[Access] = "weights"
    works_on: ClassVar[Kind] = "dual"
    passes: ClassVar[str] = "none; two small products a linear module, or both towers' weights are replaced"
    data: ClassVar[str] = "pairs of pictures and captions or names; federated training"
    quick: ClassVar[Mapping[str, Any]] = {"clients": 2, "rounds": 1, "local": 1, "batch": 2, "rate": 10.0}

    clients: int = 4
    rounds: int = 10
    local: int = 4
    rate: float = 0.01
    batch: int = 32
    alpha: float = 1000.0
    mu: float = 0.0
    train: How = "adapters"
    rank: int = 8

    def __post_init__(self) -> None:
        Rounds(self.rounds, self.local, self.rate, self.mu)
        dirichlet_split((), self.clients, self.alpha, 0)
        if self.batch < 2 or self.rank < 1:
            raise BadParameter(
                f"batch={self.batch}, rank={self.rank} cannot be.",
                "A pair alone has no negatives: batch is 2 or more, rank at least 1.",
            )

    def builtin(self) -> Dataset:
        """Two training views of each known object on a ground of light and shade."""
        return training_objects(2, "ground")

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names."""
        return some_objects()

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin on the rows that have an image and a caption, or else an answer: the name.

        Raises:
            BadData: There are fewer than two texts, or no client gets two pictures.
            MissingExtra: peft is not installed, which adapters need.
        """
        known = pairs_in(data.examples)
        if len(known.names) < 2:
            raise BadData(
                f"{data.name} has {len(known.images)} pictures with a text, of {len(known.names)} different texts.",
                "Pass rows with image and caption (or answers), of two texts or more.",
            )
        dealt = self.dealt(data, seed)
        idle = self.clients - len(dealt)
        if not dealt:
            raise BadData(
                f"{data.name} gives none of {self.clients} clients two pictures.", "Take fewer clients, or more rows."
            )
        twin = twin_of(target, "all", self.train, rank=self.rank, seed=seed)
        clients = self.parties(target, twin, known, dealt, seed)
        sent = federate(twin.parameters, clients, Rounds(self.rounds, self.local, self.rate, self.mu))
        sizes = [len(rows) for rows in dealt]
        told = {
            "bytes": sent, "bytes_a_round": sent / self.rounds,
            "parameters": sum(one.numel() for one in twin.parameters), "clients": len(dealt),
            "smallest_client": min(sizes), "largest_client": max(sizes),
        }  # fmt: skip
        dose = {name: float(value) for name, value in told.items()}
        made = self.made(target, data, seed, twin.edits, dose)
        notes = [f"{idle} of {self.clients} clients got fewer than two pictures and took no part."] if idle else []
        return replace(made, card=replace(made.card, notes=(*made.card.notes, *notes)))

    def dealt(self, data: Dataset, seed: int) -> list[list[int]]:
        """Places of the pictures of each client that has two or more, dealt by category, or by text without one."""
        labels = [row.group or text_of(row) for row in data.examples if row.image is not None and text_of(row)]
        return [rows for rows in dirichlet_split(labels, self.clients, self.alpha, seed) if len(rows) > 1]

    def parties(
        self, target: DualWeights, twin: Twin, known: NamedPictures, dealt: Sequence[Sequence[int]], seed: int
    ) -> list[Client]:
        """The clients: each with its rows, all training the one twin in turn."""
        learner, scale, texts = target.on(twin.model), float(target.towers.scale), known.texts

        def party(rank: int, rows: Sequence[int]) -> Client:
            def loss(step: int) -> Tensor:
                places = chosen(rows, self.batch, f"{self.name}:{seed}:{rank}:{step}")
                words = [texts[known.right[place]] for place in places]
                pixels = target.pixels([known.images[place] for place in places])
                images, told = embedded(learner, pixels, words)
                return contrastive_loss(images, told, scale, same(words))

            return Client(len(rows), loss)

        return [party(rank, rows) for rank, rows in enumerate(dealt)]


METHOD = Federated
