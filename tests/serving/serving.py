"""A server of tiny models on a free port, and how to ask it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import torch
import uvicorn

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import (
    AddVector,
    ContrastLogits,
    ContrastShift,
    Edit,
    FilterImage,
    Gate,
    LoadAdapter,
    OtherView,
    ProjectOut,
    ReviewReply,
    RewritePrompt,
)
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.models.vlm import VLM
from vlmend.serving.app import Service
from vlmend.serving.proof import Served
from vlmend.serving.run import server_config, service_of
from vlmend.serving.settings import Settings

WIDTH, EIGHT = 32, Sampling(8)


def vector(seed: int, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def mend_of(vlm: VLM, *edits: Edit) -> Mend:
    return Mend(edits, MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test"))


def mends_that_share(vlm: VLM) -> dict[str, Mend]:
    """Mends whose requests share a batch."""
    site = Site("language", 1)
    axes = torch.linalg.qr(torch.randn(WIDTH, 2, generator=torch.Generator().manual_seed(5)))[0].T
    found: dict[str, tuple[Edit, ...]] = {
        "picture": (AddVector(site, vector(1), "last", "with_image"),),
        "gated": (AddVector(site, vector(2), "last", gate=Gate(Site("language", 0), vector(3), 0.0)),),
        "several": (
            AddVector(site, vector(4), "reply"),
            ProjectOut(site, axes, 1.0, "last"),
            AddVector(site, vector(6)),
        ),
        "sample": (ContrastShift((1, 2), blank_image(16), tokens="last"),),
        "words": (RewritePrompt(before="Be kind. "), FilterImage("blur", 2.0)),
    }
    return {name: mend_of(vlm, *edits) for name, edits in found.items()}


def mends_of_whole_batches(vlm: VLM) -> dict[str, Mend]:
    """Mends whose requests are answered a view at a time."""
    factors = [torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(k)) for k in (7, 8)]
    adapter = LoadAdapter("model.language_model.layers.1.mlp.gate_proj", factors[0], torch.randn(64, 4), 1.0)
    return {
        "weights": mend_of(vlm, adapter),
        "logits": mend_of(vlm, ContrastLogits((OtherView(before="Safely: "),), 0.5)),
        "review": mend_of(vlm, ReviewReply("Harm in {prompt} {reply}?", "x", "Tell {prompt}", "{caption} {prompt}")),
    }


@dataclass(frozen=True)
class Asked:
    """A request as a client sends it."""

    model: str
    conversation: Conversation
    sampling: Sampling = EIGHT
    stream: bool = False

    @property
    def body(self) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [
            {"role": turn.role, "content": [
                *({"type": "image_url", "image_url": {"url": image.to_data_uri()}} for image in turn.images),
                {"type": "text", "text": turn.text},
            ]} for turn in self.conversation.turns
        ]  # fmt: skip
        drawn = {"seed": self.sampling.seed} if self.sampling.temperature else {}
        how = {"max_tokens": self.sampling.max_new_tokens, "temperature": self.sampling.temperature}
        return {"model": self.model, "messages": parts, "stream": self.stream, **how, **drawn}


@contextmanager
def started(served: Mapping[str, VLM], settings: Settings = Settings()) -> Iterator[tuple[str, Service]]:
    """A server of these views on a free port, until the block ends."""
    service = service_of({name: Served(name, view) for name, view in served.items()}, replace(settings, port=0))
    with listening(service) as address:
        yield address, service


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The address of a service on a free port, until the block ends."""
    server = uvicorn.Server(server_config(service))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        service.worker.close()


def post(address: str, body: Any, client: httpx.Client | None = None, **given: Any) -> httpx.Response:
    """An answer; a client that is kept saves making one, a quarter of the time of a short request to a tiny model."""
    place = f"{address}/v1/chat/completions"
    if client is not None:
        return client.post(place, json=body, **given)
    return httpx.post(place, json=body, timeout=60, trust_env=False, **given)


def events(answer: str) -> list[dict[str, Any]]:
    """What a stream holds, [DONE] left out and required."""
    rows = [line.removeprefix("data: ") for line in answer.split("\n\n") if line]
    assert rows[-1] == "[DONE]"
    return [json.loads(row) for row in rows[:-1]]


def text_of(answer: httpx.Response, stream: bool) -> str:
    """The reply of an answer, whole or streamed."""
    assert answer.status_code == 200, answer.text
    if not stream:
        return answer.json()["choices"][0]["message"]["content"]
    return "".join(c["delta"].get("content", "") for row in events(answer.text) for c in row["choices"])


def alone(view: VLM, asked: Sequence[Asked]) -> list[str]:
    """What `generate` says to each request by itself."""
    return [view.generate([one.conversation], one.sampling)[0].text for one in asked]
