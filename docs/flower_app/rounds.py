"""The rounds of vlmend's method `federated` as a Flower app: one SuperLink, a SuperNode for each client.

flwr is no dependency of vlmend: its pins do not go with vlmend's lock. See docs/methods/federated.md for an environment
that holds both, and for how far the app agrees with the method. With Flower come secure aggregation (see `secure.py`)
and its wrapper of differential privacy, which is on where `noise` is above 0: updates clipped to length `clip` by the
server, and Gaussian noise on their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from vlmend.core.examples import Dataset
from vlmend.methods.privacy.federated import Federated
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.named import pairs_in
from vlmend.training.federated import Client, Rounds, federate, local_update
from vlmend.training.twin import Twin, twin_of

client = ClientApp()
server = ServerApp()


def parts_of(told: Mapping[str, Any]) -> tuple[Twin, list[Client], Rounds]:
    """The twin, the clients and the plan: every process makes the same of the run's config."""
    torch.set_num_threads(1)
    method = Federated(**{name: told[name] for name in ("clients", "rounds", "local", "rate", "batch", "alpha", "mu")})
    base, data = _given(str(told["model"]), method)
    known, seed = pairs_in(data.examples), int(told["seed"])
    twin = twin_of(base, "all", method.train, rank=method.rank, seed=seed)
    clients = method.parties(base, twin, known, method.dealt(data, seed), seed)
    return twin, clients, Rounds(method.rounds, method.local, method.rate, method.mu)


def _given(model: str, method: Federated) -> tuple[DualEncoder, Dataset]:
    if model == "tiny":
        from vlmend.testing import tiny_clip

        return tiny_clip(), method.sample_data()
    return load_dual(phantom_clip(), name="phantom-clip"), method.builtin()


def packed(values: Sequence[torch.Tensor]) -> ArrayRecord:
    """Parameters in their order."""
    return ArrayRecord({f"{k:04}": Array(value.detach().numpy()) for k, value in enumerate(values)})


def unpacked(record: ArrayRecord) -> list[torch.Tensor]:
    """The same back."""
    return [torch.tensor(record[name].numpy()) for name in sorted(record)]


@client.train()
def train(message: Message, context: Context) -> Message:
    """A client's local steps on the parameters that the server sent."""
    twin, clients, plan = parts_of(context.run_config)
    mine = clients[int(context.node_config["partition-id"])]
    turn = int(message.content["config"]["server-round"]) - 1
    made = local_update(twin.parameters, unpacked(message.content["arrays"]), mine, plan, turn)
    told = MetricRecord({"num-examples": mine.weight})
    return Message(content=RecordDict({"arrays": packed(made), "metrics": told}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds by Flower's FedAvg, then the same by vlmend, and how far they are apart."""
    twin, clients, plan = parts_of(context.run_config)
    start = [one.detach().clone() for one in twin.parameters]
    every = len(clients)
    strategy: Strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=every, min_available_nodes=every)
    noise, clip = (float(context.run_config[name]) for name in ("noise", "clip"))
    if noise:
        strategy = DifferentialPrivacyServerSideFixedClipping(strategy, noise, clip, every)
    result = strategy.start(grid=grid, initial_arrays=packed(start), num_rounds=plan.rounds)
    theirs = unpacked(result.arrays)
    federate(twin.parameters, clients, plan)
    apart = max(float((a - b.detach()).abs().max()) for a, b in zip(theirs, twin.parameters, strict=True))
    moved = max(float((a - b).abs().max()) for a, b in zip(theirs, start, strict=True))
    print(f"{len(clients)} clients, {plan.rounds} rounds: largest change {moved:.3g}, largest difference {apart:.3g}")
    np.savez(str(context.run_config["out"]), *[one.numpy() for one in theirs])
