"""What is served is what `generate` says, mended and bare, whole and streamed, in whatever company."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from tests.models.families import family
from tests.serving.serving import (
    Asked,
    alone,
    events,
    mend_of,
    mends_of_whole_batches,
    mends_that_share,
    post,
    started,
    text_of,
    vector,
)

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.edits import AddVector
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.models.vlm import VLM
from vlmend.serving.app import Service
from vlmend.testing import tiny_vlm

Started = tuple[str, Service, dict[str, VLM]]


def views(vlm: VLM) -> dict[str, VLM]:
    mends = mends_that_share(vlm) | mends_of_whole_batches(vlm)
    return {"base": vlm} | {f"base+{name}": vlm.with_mend(mend) for name, mend in mends.items()}


@pytest.fixture(scope="module")
def server() -> Iterator[Started]:
    served = views(tiny_vlm(seed=0))
    with started(served) as (address, service):
        yield address, service, served


def drawn(count: int, names: list[str], seed: int, hot: float = 0.2) -> list[Asked]:
    """Requests of many kinds to all views."""
    rng = random.Random(seed)
    found: list[Asked] = []
    for k in range(count):
        image = noise_image(16, rng.randrange(50)) if rng.random() < 0.6 else None
        turns = (Turn("user", "word " * rng.randrange(1, 5) + str(k), () if image is None else (image,)),)
        if rng.random() < 0.3:
            turns = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Yes?"), *turns)
        name = rng.choice(names)
        heat = float(rng.random() < hot and name != "base+logits")  # a contrast of logits is greedy
        sampling = Sampling(rng.randrange(1, 12), heat, rng.randrange(10))
        found.append(Asked(name, Conversation(turns), sampling, rng.random() < 0.3))
    return found


def compared(address: str, served: dict[str, VLM], asked: list[Asked], at_once: int) -> int:
    """How many served replies are not those of the request alone."""
    with ThreadPoolExecutor(at_once) as pool, httpx.Client(timeout=60, trust_env=False) as client:
        answers = list(pool.map(lambda one: post(address, one.body, client), asked))
    found = [text_of(answer, one.stream) for answer, one in zip(answers, asked, strict=True)]
    wanted = [alone(served[one.model], [one])[0] for one in asked]
    return sum(a != b for a, b in zip(found, wanted, strict=True))


def test_served_is_what_generate_says_token_for_token(server: Started) -> None:
    address, _, served = server
    asked = drawn(36, list(served), seed=0)
    assert compared(address, served, asked, at_once=12) == 0
    bare = [alone(served["base"], [one])[0] for one in asked]
    mended = [alone(served[one.model], [one])[0] for one in asked]
    assert sum(a != b for a, b in zip(bare, mended, strict=True)) > 10  # so one mend in the other's place would be seen


@pytest.mark.slow
def test_ten_thousand_mixed_requests_leak_nothing() -> None:
    vlm = tiny_vlm(seed=0, dtype=torch.float64)  # so that equal logits are equal in every company
    dear = ("sample", "logits", "review")  # several reads a request
    served = {name: view for name, view in views(vlm).items() if name.partition("+")[2] not in dear}
    wrong = 0
    with started(served) as (address, _):
        for part in range(20):
            wrong += compared(address, served, drawn(500, list(served), seed=part), at_once=24)
            gc.collect()
            kinds = Counter(type(one).__name__ for one in gc.get_objects())
            assert max(kinds[name] for name in ("Job", "LiveRequest", "Row", "Running", "_Exchange")) <= 2
    print(f"{wrong} of 10,000 differ")
    assert wrong == 0


def test_requests_under_different_mends_share_a_batch(server: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    address, service, served = server
    sizes: list[set[str]] = []
    admitted = service.worker._live.admit
    monkeypatch.setattr(
        service.worker._live, "admit", lambda batch: sizes.append({one.view.id for one in batch}) or admitted(batch)
    )
    names = ["base", "base+picture", "base+gated", "base+sample"]
    asked = [Asked(names[k % 4], Conversation.ask("x", noise_image(16, k)), Sampling(6)) for k in range(12)]
    assert compared(address, served, asked, at_once=12) == 0
    assert max(map(len, sizes)) > 1


def test_an_answer_holds_the_digest_and_the_proof(server: Started) -> None:
    address, _, served = server
    with_picture = Asked("base+picture", Conversation.ask("x", noise_image(16, 1)), Sampling(4))
    answer = post(address, with_picture.body).json()
    (mend,) = served["base+picture"].mends
    (said,) = served["base+picture"].generate([with_picture.conversation], with_picture.sampling)
    assert answer["vlmend"] == {
        "model_digest": served["base"].model_digest, "mends": [{"method": "by_hand", "digest": mend.digest}],
        "meant": True, "fired": {"language.1.resid_post": said.new_tokens}, "edits": ["AddVector"],
        "request_changed": False,
    }  # fmt: skip
    assert answer["usage"]["completion_tokens"] == said.new_tokens
    assert answer["system_fingerprint"] == served["base+picture"].id
    words_only = post(address, Asked("base+picture", Conversation.ask("x")).body).json()["vlmend"]
    assert (words_only["meant"], words_only["fired"]) == (False, {})
    rewritten = post(address, Asked("base+words", Conversation.ask("x")).body).json()["vlmend"]
    assert (rewritten["edits"], rewritten["request_changed"]) == (["RewritePrompt"], True)


def test_a_stream_begins_with_the_role_and_ends_with_reason_proof_and_usage(server: Started) -> None:
    address, _, served = server
    one = Asked("base+gated", Conversation.ask("a longer word", noise_image(16, 3)), Sampling(9), stream=True)
    rows = events(post(address, one.body | {"stream_options": {"include_usage": True}}).text)
    assert rows[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    *pieces, last, usage = rows
    assert sum(bool(row["choices"][0]["delta"].get("content")) for row in pieces) > 3  # it came in pieces
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    assert last["vlmend"]["mends"][0]["digest"] == served["base+gated"].mends[0].digest
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 9


def test_a_draw_without_a_seed_is_another_each_time_and_with_one_the_same(server: Started) -> None:
    address, _, _ = server
    body = Asked("base", Conversation.ask("x"), Sampling(12)).body | {"temperature": 1.5}
    free = {post(address, body).json()["choices"][0]["message"]["content"] for _ in range(4)}
    held = {post(address, body | {"seed": 4}).json()["choices"][0]["message"]["content"] for _ in range(4)}
    assert len(free) > 1
    assert len(held) == 1


def test_what_a_mend_cannot_do_is_the_fault_of_who_asks_for_it(server: Started) -> None:
    address, _, _ = server
    hot = Asked("base+logits", Conversation.ask("x", noise_image(16, 1)), Sampling(4, temperature=1.0))
    answer = post(address, hot.body)
    assert answer.status_code == 400
    assert "decodes greedily only" in answer.json()["error"]["message"]


def test_a_family_whose_rows_cannot_be_joined_is_served_a_view_at_a_time() -> None:
    vlm = family("llama4")
    mended = vlm.with_mend(mend_of(vlm, AddVector(Site("language", 0), vector(1), "last")))
    served = {"base": vlm, "base+push": mended}
    asked = [
        Asked(name, Conversation.ask("yes " * k, noise_image(16, k)), Sampling(5)) for k in (1, 2) for name in served
    ]
    with started(served) as (address, _):
        assert compared(address, served, asked, at_once=4) == 0
