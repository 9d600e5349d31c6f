"""The rounds of vlmend's method `federated` under Flower's secure aggregation (SecAgg+): the server sees a sum alone.

    python docs/flower_app/secure.py      # clients and server in one process, messages handed over in memory

Flower's own client mod and server workflow; nothing of the protocol is written here. What is printed: how far the
parameters are from those of vlmend's rounds, and how what one client sent goes with what it has. For `flwr run`, name
`secure:server` and `secure:client` as components in pyproject.toml.
"""

from __future__ import annotations

import copy
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

sys.path.insert(0, str(Path(__file__).parent))

from rounds import parts_of

from vlmend.training.federated import federate, local_update

SHARES, NEEDED = 3, 2
"""Of a client's key: into how many it is split, and how many bring it back when a client drops out."""
RANGE = 2.0
"""Parameters beyond it would be clipped before they become whole numbers."""


class Party(NumPyClient):
    """A client's local steps on the parameters that the server sent."""

    def __init__(self, context: Context) -> None:
        twin, clients, plan = parts_of(context.run_config)
        self.parameters, self.plan = twin.parameters, plan
        self.mine = clients[int(context.node_config["partition-id"])]

    def fit(self, parameters: list[np.ndarray], config: dict[str, Any]) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        sent = [torch.tensor(one) for one in parameters]
        made = local_update(self.parameters, sent, self.mine, self.plan, int(config["round"]) - 1)
        return [one.detach().numpy() for one in made], int(self.mine.weight), {}


client = ClientApp(client_fn=lambda context: Party(context).to_client(), mods=[secaggplus_mod])
server = ServerApp()


class Kept(FedAvg):
    """FedAvg that remembers the last parameters."""

    last: list[np.ndarray]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        found = super().aggregate_fit(server_round, results, failures)
        if found[0] is not None:
            self.last = parameters_to_ndarrays(found[0])
        return found


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds under SecAgg+, then the same by vlmend, and how far they are apart."""
    twin, clients, plan = parts_of(context.run_config)
    start = [one.detach().clone() for one in twin.parameters]
    count, most = len(clients), max(one.weight for one in clients)
    strategy = Kept(
        fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=count, min_available_clients=count,
        initial_parameters=ndarrays_to_parameters([one.numpy() for one in start]),
        on_fit_config_fn=lambda number: {"round": number},
    )  # fmt: skip
    legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=plan.rounds), strategy=strategy)
    secure = SecAggPlusWorkflow(SHARES, NEEDED, max_weight=float(most), clipping_range=RANGE)
    DefaultWorkflow(fit_workflow=secure)(grid, legacy)
    federate(twin.parameters, clients, plan)
    pairs = list(zip(strategy.last, twin.parameters, start, strict=True))
    apart = max(float(np.abs(a - b.detach().numpy()).max()) for a, b, _ in pairs)
    moved = max(float((b.detach() - c).abs().max()) for _, b, c in pairs)
    print(f"{count} clients, {plan.rounds} rounds: largest change {moved:.3g}, largest difference {apart:.3g}")


class InMemory(Grid):
    """Hands each message to its client, and remembers what each sent in place of its parameters."""

    def __init__(self, config: dict[str, Any]) -> None:
        count = int(config["clients"])
        self.contexts = {
            k + 1: Context(0, k + 1, {"partition-id": k, "num-partitions": count}, RecordDict(), config)
            for k in range(count)
        }
        self.sent: list[tuple[int, np.ndarray]] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = [self._answered(copy.deepcopy(message)) for message in messages]
        return [copy.deepcopy(reply) for reply in replies]

    def _answered(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        reply = client(message, self.contexts[node])
        for record in reply.content.config_records.values():
            if Key.MASKED_PARAMETERS in record:
                arrays = [bytes_to_ndarray(one) for one in record[Key.MASKED_PARAMETERS]]
                self.sent.append((node, np.concatenate([one.ravel() for one in arrays[1:]]).astype(float)))
        return reply

    def get_node_ids(self) -> list[int]:
        return list(self.contexts)

    def create_message(self, content: Any, message_type: str, dst_node_id: int, group_id: str, ttl: Any = None) -> Any:
        return Message(content=content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def set_run(self, run: Any) -> None:
        return None

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=0)

    def push_messages(self, messages: Any) -> Any:
        raise NotImplementedError

    def pull_messages(self, message_ids: Any) -> Any:
        raise NotImplementedError


def told(grid: InMemory, config: dict[str, Any]) -> str:
    """Correlation of what each client sent, round by round, with the parameters that all began with."""
    twin, _, _ = parts_of(config)
    own = np.concatenate([one.detach().numpy().ravel() for one in twin.parameters])
    found = [f"client {node}: {np.corrcoef(sent, own)[0, 1]:+.4f}" for node, sent in grid.sent]
    return (
        f"correlation of what was sent with the parameters, {len(own)} numbers, by chance within "
        f"{1.96 / len(own) ** 0.5:.4f} in 19 of 20: {', '.join(found)}"
    )


if __name__ == "__main__":
    settings = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    settings |= {"clients": 3, "out": ""}
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 0  # messages are stamped with them
    grid = InMemory(settings)
    main(grid, Context(0, 0, {}, RecordDict(), settings))
    print(told(grid, settings))
