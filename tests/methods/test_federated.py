"""federated: one client is plain training, mu 0 is FedAvg, means by hand, bytes to the byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.privacy.federated import Federated
from vlmend.pictures.named import named_pictures
from vlmend.testing import tiny_clip
from vlmend.training.federated import Client, Rounds, averaged, dirichlet_split, federate
from vlmend.training.twin import twin_of

NAMES = ("ant", "bee", "cat")
DATA = Dataset(
    "named", tuple(Example(str(k), image=noise_image(16, k), answers=(NAMES[k % 3],)) for k in range(12))
)  # fmt: skip
SETTINGS: dict[str, Any] = {"clients": 2, "rounds": 2, "local": 2, "batch": 3, "rate": 0.05, "train": "weights"}


def trained(client_places: Sequence[tuple[float, int]], plan: Rounds) -> float:
    number = nn.Parameter(torch.zeros(1))

    def party(place: float, weight: int) -> Client:
        return Client(weight, lambda step: 0.5 * ((number - place) ** 2).sum())

    federate([number], [party(*one) for one in client_places], plan)
    return float(number.detach())


def test_the_mean_is_weighted_by_rows() -> None:
    """(1 * 2 + 3 * 8) / 4 = 6.5."""
    mean = averaged([[torch.tensor([2.0])], [torch.tensor([8.0])]], [1, 3])
    assert [float(one) for one in mean] == [6.5]


def test_a_round_by_hand_with_and_without_the_pull() -> None:
    """From 0 with rate 0.5: towards 4 (3 rows) and 8 (1 row), two local steps each.

    FedAvg: 0 -> 2 -> 3 and 0 -> 4 -> 6, mean (3 * 3 + 6) / 4 = 3.75. FedProx with mu 1: the second step is
    2 - 0.5 ((2 - 4) + (2 - 0)) = 2 and 4, mean 2.5.
    """
    places = [(4.0, 3), (8.0, 1)]
    assert trained(places, Rounds(1, 2, 0.5)) == 3.75
    assert trained(places, Rounds(1, 2, 0.5, mu=1.0)) == 2.5
    assert trained(places[::-1], Rounds(1, 2, 0.5)) == 3.75


def test_a_pull_without_end_freezes_and_none_is_fedavg() -> None:
    """w <- w - r (g + mu (w - sent)) with r mu = 1 goes back to where it was sent from, less one gradient step."""
    places = [(4.0, 1)]
    assert trained(places, Rounds(3, 50, 1e-4, mu=1e4)) == pytest.approx(3 * 4e-4, rel=1e-2)
    assert trained(places, Rounds(2, 3, 0.1, mu=0.0)) == trained(places, Rounds(2, 3, 0.1))


def test_one_step_of_alike_clients_is_the_step_of_the_pooled_gradient() -> None:
    assert trained([(4.0, 2), (1.0, 2)], Rounds(1, 1, 0.5)) == trained([(2.5, 4)], Rounds(1, 1, 0.5))


def test_one_client_is_plain_training_to_the_bit() -> None:
    """Two rounds of two steps: the same as four steps of torch's own gradient descent on the same batches."""
    target, method = tiny_clip(), Federated(**{**SETTINGS, "clients": 1})
    known = named_pictures(DATA)
    twin = twin_of(target, "all", "weights", seed=0)
    (client,) = method.parties(target, twin, known, method.dealt(DATA, 0), 0)
    optimiser = torch.optim.SGD(twin.parameters, lr=method.rate)
    for step in range(4):
        optimiser.zero_grad()
        client.loss(step).backward()
        optimiser.step()
    mend = method.fit(target, DATA, seed=0)
    assert mend.digest == method.made(target, DATA, 0, twin.edits, mend.card.dose).digest


def test_mu_0_is_fedavg_and_mu_changes_what_is_learnt() -> None:
    target, images = tiny_clip(), [row.image for row in DATA.examples if row.image]

    def seen(**told: Any) -> Tensor:
        return target.with_mend(Federated(**{**SETTINGS, **told}).fit(target, DATA, seed=0)).embed_images(images)

    assert torch.equal(seen(mu=0.0), seen())
    assert not torch.equal(seen(mu=5.0), seen())


def test_bytes_and_clients_stand_in_the_card() -> None:
    """Down and up, 2 rounds, 2 clients, 4 bytes a number."""
    target = tiny_clip()
    dose = Federated(**SETTINGS).fit(target, DATA, seed=0).card.dose
    numbers = sum(one.numel() for one in twin_of(target, "all", "weights", seed=0).parameters)
    assert dose["parameters"] == numbers
    assert dose["bytes"] == 2 * 2 * 2 * numbers * 4
    assert dose["bytes_a_round"] == dose["bytes"] / 2
    assert dose["smallest_client"] + dose["largest_client"] == 12


def test_every_row_has_one_client_and_alpha_says_how_alike_clients_are() -> None:
    labels = [NAMES[k % 3] for k in range(300)]
    alike, apart = dirichlet_split(labels, 4, 1000.0, 0), dirichlet_split(labels, 4, 0.05, 0)
    for dealt in (alike, apart):
        assert sorted(row for rows in dealt for row in rows) == list(range(300))
    assert all(20 <= count <= 30 for rows in alike for count in Counter(labels[k] for k in rows).values())
    largest = [max(Counter(labels[k] for k in rows).values()) / len(rows) for rows in apart if rows]
    assert sum(largest) / len(largest) > 0.7
    assert dirichlet_split(labels, 4, 0.05, 0) == apart != dirichlet_split(labels, 4, 0.05, 1)


def test_what_cannot_be_is_refused_and_idle_clients_are_told() -> None:
    for wrong in ({"clients": 0}, {"alpha": 0.0}, {"mu": -1.0}, {"rate": 0.0}, {"rounds": 0}, {"batch": 1}):
        with pytest.raises(BadParameter, match="cannot be"):
            Federated(**wrong)
    few = Dataset("few", DATA.examples[:2])
    with pytest.raises(BadData, match="none of 40 clients"):
        Federated(**{**SETTINGS, "clients": 40, "alpha": 1.0}).fit(tiny_clip(), few, seed=3)
    mend = Federated(**{**SETTINGS, "clients": 6, "alpha": 0.05, "rounds": 1, "local": 1}).fit(
        tiny_clip(), DATA, seed=0
    )
    assert any("took no part" in note for note in mend.card.notes)
