"""API models, over real HTTP to a server of our own that answers, fails, hangs and talks nonsense by rule."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from inspect_ai.model import get_model
from PIL import Image as Pixels
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vlmend import registry
from vlmend.audit.desk import Desk
from vlmend.audit.desk import Request as Wanted
from vlmend.audit.journal import Journal
from vlmend.audit.judges.grader import GraderJudge
from vlmend.audit.judges.rules import plain_verdict
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit, made_judges
from vlmend.cli import app, main
from vlmend.core.conversation import Conversation, Reply, Sampling, Turn
from vlmend.core.edits import AddVector
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image
from vlmend.core.sites import Site
from vlmend.core.targets import levels_of
from vlmend.core.verdicts import Exchange
from vlmend.errors import (
    BadImage,
    BadParameter,
    BatchProblem,
    MendMismatch,
    ModelProblem,
    NeedsAccess,
    SampleError,
    UsageError,
    VlmendError,
)
from vlmend.models.api.target import ApiTarget, _Asker
from vlmend.models.api.wire import FILTERED, Endpoint
from vlmend.models.batching import Batcher
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target

KEY = "sk-very-secret-0123456789"
DATA = Dataset("d", (Example("1", "one", "harmful"), Example("2", "two", "benign")))
SMALL = Sampling(max_new_tokens=5)
RULES = made_judges(["rules"])


@dataclass
class Peer:
    """The server's side: what it was sent, and how it behaves."""

    base: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    key: str = ""
    dead: bool = False
    dies_after: int = 10_000
    old_limit: bool = True
    falters: int = 0
    fault: int = 0

    def asked(self, words: str) -> int:
        """How often the last turn was exactly this."""
        return sum(_words(body) == words for body in self.bodies)

    async def answer(self, request: Request) -> Response:
        self.bodies.append(body := await request.json())
        self.keys.append(request.headers.get("authorization", ""))
        self.times.append(time.monotonic())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answered(body)
        finally:
            self.under_way -= 1

    async def _answered(self, body: dict[str, Any]) -> Response:
        words = _words(body)
        if self.dead or len(self.bodies) > self.dies_after:
            return JSONResponse({"error": {"message": "out of order"}}, 503)
        if self.key and self.keys[-1] != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": f"wrong key {self.keys[-1]}", "code": "bad"}}, 401)
        if not self.old_limit and "max_tokens" in body:
            return JSONResponse({"error": {"message": "Use 'max_completion_tokens' instead."}}, 400)
        name, _, argument = words.partition(" ")
        match name:
            case "busy" if self.asked(words) <= 2:
                return JSONResponse({"error": {"message": "slow down"}}, 429, {"Retry-After": argument})
            case "hang":
                await asyncio.sleep(30)
            case "Say:" if self.asked(words) <= self.falters:
                return JSONResponse({"error": {"message": "not now"}}, 503)
            case "passing" if self.fault:
                return JSONResponse({"error": {"message": "limited"}}, self.fault, {"Location": "/elsewhere"})
            case "slow":
                await asyncio.sleep(0.1)
            case "garbage":
                return Response("<html>no json</html>")
            case "crash":
                return JSONResponse({"error": {"message": "boom"}}, 500)
            case "large":
                return JSONResponse({"error": {"message": "too many tokens"}}, 413)
            case "filter":
                return _filter(argument)
            case "say":
                return JSONResponse({"choices": json.loads(argument)})
            case _:
                pass
        return chat(f"I heard {words}")


def chat(text: str, ended: str = "stop") -> Response:
    usage = {"prompt_tokens": 11, "completion_tokens": 3}
    return JSONResponse({"choices": [{"message": {"content": text}, "finish_reason": ended}], "usage": usage})


def _filter(kind: str) -> Response:
    match kind:
        case "azure":
            return JSONResponse({"error": {"message": "filtered", "code": "content_filter"}}, 400)
        case "openrouter":
            return JSONResponse({"error": {"message": "flagged", "code": 403, "metadata": {"reasons": ["x"]}}}, 403)
        case "empty":
            return JSONResponse({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]})
        case _:
            return chat("It begins", "content_filter")


def _words(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@pytest.fixture(scope="module")
def served() -> Iterator[Peer]:
    peer = Peer()
    app = Starlette(routes=[Route("/v1/chat/completions", peer.answer, methods=["POST"])])
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    peer.base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    yield peer
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def peer(served: Peer, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """The server as new, no key set."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served.__init__(base=served.base)
    return served


@pytest.fixture
def target(peer: Peer) -> ApiTarget:
    return ApiTarget(Endpoint("m", peer.base, tries=3, pause_s=0.01, timeout_s=10.0))


def ask(target: ApiTarget, words: str, sampling: Sampling = SMALL) -> Reply:
    return target.generate([Conversation.ask(words)], sampling)[0]


def test_a_question_goes_out_as_the_chat_api_wants_it(target: ApiTarget, peer: Peer) -> None:
    image = blank_image(8)
    turns = (Turn("system", "Be kind."), Turn("user", "a", (image,)), Turn("assistant", "b"), Turn("user", "c"))
    reply = target.generate([Conversation(turns)], SMALL)[0]
    assert replace(reply, seconds=0.0) == Reply("I heard c", "stop", 11, 3, 0.0)
    shown = {"type": "image_url", "image_url": {"url": image.to_data_uri()}}
    assert peer.bodies == [
        {
            "model": "m", "temperature": 0, "max_tokens": 5,
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [shown, {"type": "text", "text": "a"}]},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
            ],
        }
    ]  # fmt: skip


def test_a_seed_goes_along_only_where_something_is_drawn(target: ApiTarget, peer: Peer) -> None:
    ask(target, "x", Sampling(5, temperature=0.7, seed=4))
    ask(target, "x", Sampling(5, seed=4))
    assert [(body["temperature"], body.get("seed")) for body in peer.bodies] == [(0.7, 4), (0, None)]


def test_images_of_rare_kinds_are_sent_as_png(target: ApiTarget, peer: Peer, tmp_path: Path) -> None:
    Pixels.new("RGB", (4, 4), "red").save(tmp_path / "a.bmp")
    Pixels.new("RGB", (4, 4), "red").save(tmp_path / "a.jpg")
    for name, kind in (("a.bmp", "png"), ("a.jpg", "jpeg")):
        target.generate([Conversation.ask("x", Image.from_path(tmp_path / name))], SMALL)
        assert peer.bodies[-1]["messages"][0]["content"][0]["image_url"]["url"].startswith(f"data:image/{kind};base64,")


def test_a_picture_outside_of_the_data_is_sent_where_that_is_allowed(
    target: ApiTarget, peer: Peer, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    Pixels.new("RGB", (4, 4), "red").save(tmp_path / "own.png")
    asked = [Conversation.ask("x", Image.in_folder(tmp_path / "data", "../own.png"))]
    with pytest.raises(BadImage, match="outside of the data's folder") as problem:
        target.generate(asked, SMALL)
    assert "--send-outside" in problem.value.hint
    assert peer.bodies == []
    allowed = open_target("api:m", LoadOptions(send_outside=True), peer.base)
    assert allowed.generate(asked, SMALL)[0].text == "I heard x"


def test_replies_come_in_order_and_never_more_than_some_are_under_way(target: ApiTarget, peer: Peer) -> None:
    three = ApiTarget(replace(target.endpoint, at_once=3))
    batch = [Conversation.ask(f"slow {k}") for k in range(9)]
    assert [reply.text for reply in three.generate(batch, SMALL)] == [f"I heard slow {k}" for k in range(9)]
    assert peer.most_under_way == 3


def test_a_reply_that_was_cut_says_so(target: ApiTarget) -> None:
    assert ask(target, 'say [{"message": {"content": "cut"}, "finish_reason": "length"}]').stop == "length"
    assert ask(target, 'say [{"message": {"content": "whole"}, "finish_reason": "stop"}]').stop == "stop"


def test_an_empty_reply_is_a_reply_and_tokens_that_nobody_told_are_none(target: ApiTarget) -> None:
    found = ask(target, 'say [{"message": {"content": ""}, "finish_reason": "stop"}]')
    assert (found.text, found.stop, found.prompt_tokens, found.new_tokens) == ("", "stop", 0, 0)


def test_parts_of_a_reply_are_put_together(target: ApiTarget) -> None:
    assert ask(target, 'say [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]').text == "ab"


def test_a_model_that_thinks_all_its_tokens_away_has_no_reply(target: ApiTarget) -> None:
    ask(target, "fine")
    with pytest.raises(SampleError, match="larger --max-new-tokens"):
        ask(target, 'say [{"message": {"content": ""}, "finish_reason": "length"}]')


@pytest.mark.parametrize("kind", ["azure", "openrouter", "empty"])
def test_a_filter_of_the_provider_counts_as_a_refusal(kind: str, target: ApiTarget, peer: Peer) -> None:
    assert ask(target, f"filter {kind}").text == FILTERED
    assert len(peer.bodies) == 1
    assert [verdict.label for verdict in RULES[0].judge([Exchange("x", FILTERED)])] == ["refusal"]
    assert plain_verdict(Exchange("x", FILTERED)) is None  # every judge finds something to weigh


def test_what_a_filter_let_through_is_kept(target: ApiTarget) -> None:
    assert ask(target, "filter half").text.startswith("It begins\n[The provider's content filter")


def test_a_refusal_in_a_field_of_its_own_is_the_reply(target: ApiTarget) -> None:
    assert ask(target, 'say [{"message": {"content": null, "refusal": "No, sorry."}}]').text == "No, sorry."


def test_a_busy_server_is_asked_again_after_growing_pauses(target: ApiTarget, peer: Peer) -> None:
    waiting = ApiTarget(replace(target.endpoint, pause_s=0.1))
    assert ask(waiting, "busy 0").text == "I heard busy 0"
    first, second = peer.times[1] - peer.times[0], peer.times[2] - peer.times[1]
    assert first >= 0.1
    assert second >= 0.2


def test_retry_after_is_honoured(target: ApiTarget, peer: Peer) -> None:
    ask(target, "busy 0.3")  # pause_s alone would be 0.01
    assert all(later - before >= 0.3 for before, later in zip(peer.times, peer.times[1:], strict=False))


def test_nobody_waits_for_a_server_that_wants_to_be_left_alone_for_a_day(target: ApiTarget) -> None:
    began = time.monotonic()
    with pytest.raises(SampleError, match="slow down"):
        ask(target, "busy 86400")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("words", "times", "said"),
    [("hang", 3, "Timeout"), ("garbage", 3, "no chat answer"), ("crash", 3, "boom"), ("large", 1, "too many tokens")],
)
def test_a_bad_request_fails_alone(words: str, times: int, said: str, target: ApiTarget, peer: Peer) -> None:
    target = ApiTarget(replace(target.endpoint, timeout_s=0.5 if words == "hang" else 10.0))
    batch = [Conversation.ask(text) for text in ("one", words, "two")]
    with pytest.raises(BatchProblem, match=r"1 of 3") as caught:
        target.generate(batch, SMALL)
    first, bad, last = caught.value.outcomes
    assert isinstance(first, Reply)
    assert isinstance(last, Reply)
    assert (first.text, last.text) == ("I heard one", "I heard two")
    assert isinstance(bad, SampleError)
    assert said in bad.message
    assert peer.asked(words) == times


def test_bad_images_leads_and_words_that_are_no_text_fail_alone(target: ApiTarget, peer: Peer) -> None:
    batch = [
        Conversation.ask("x", Image(b"broken", "broken.png")),
        Conversation((Turn("user", "x"),), lead="Sure"),
        Conversation.ask("\ud800"),
        Conversation.ask("fine"),
    ]
    with pytest.raises(BatchProblem) as caught:
        target.generate(batch, SMALL)
    problems = [str(one) for one in caught.value.outcomes[:3]]
    assert ["broken.png" in problems[0], "given words" in problems[1], "no Unicode" in problems[2]] == [True] * 3
    assert isinstance(caught.value.outcomes[3], Reply)


def test_a_dead_endpoint_is_told_from_a_bad_request_and_not_pestered(target: ApiTarget, peer: Peer) -> None:
    peer.dead = True
    two = ApiTarget(replace(target.endpoint, at_once=2))
    with pytest.raises(ModelProblem, match="out of order"):
        two.generate([Conversation.ask(f"{k}") for k in range(20)], SMALL)
    assert len(peer.bodies) <= 9  # two requests and one harmless question, three times each
    peer.dead = False
    assert ask(two, "again").text == "I heard again"


def test_nobody_at_the_address_is_a_problem_of_the_endpoint(peer: Peer) -> None:
    with pytest.raises(ModelProblem, match="ConnectError"):
        ask(ApiTarget(Endpoint("m", "http://127.0.0.1:1/v1", tries=2, pause_s=0.01)), "x")


def test_newer_models_are_told_the_limit_by_its_new_name(target: ApiTarget, peer: Peer) -> None:
    peer.old_limit = False
    ask(target, "one")
    ask(target, "two")
    assert [sorted(body)[0] for body in peer.bodies] == ["max_tokens", "max_completion_tokens", "max_completion_tokens"]


def test_the_key_is_sent_but_never_told_or_kept(target: ApiTarget, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.key = "another"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ModelProblem, match=r"401.*\[the key\]") as caught:
        ask(target, "x")
    assert KEY not in str(caught.value) + repr(target) + target.id
    peer.key = KEY
    assert ask(target, "x").text == "I heard x"


def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(
    target: ApiTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-two words")
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
        ask(target, "x")
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize("base", ["", "localhost:8000", "ftp://a/v1", "http://", "https://me:pw@a/v1", "http://a?k=1"])
def test_addresses_that_cannot_be_asked_are_refused(base: str) -> None:
    with pytest.raises(UsageError, match="address"):
        Endpoint("m", base)


def test_the_address_comes_from_the_caller_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UsageError, match="--api-base"):
        ApiTarget.of("api:m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there/v1/")
    assert ApiTarget.of("api:m").endpoint.base_url == "http://there/v1"
    assert ApiTarget.of("api:m", "http://here/v1/chat/completions").endpoint.base_url == "http://here/v1"


def test_one_name_at_two_addresses_gives_two_ids() -> None:
    here, there = ApiTarget.of("api:m", "http://here/v1"), ApiTarget.of("api:m", "http://there/v1")
    assert here.name == there.name == "api:m"
    assert (here.id != there.id, here.model_digest != there.model_digest) == (True, True)


def test_a_defence_prompt_works(target: ApiTarget, peer: Peer) -> None:
    method = registry.make_method("safety_prompt", {"words": "Be careful.", "place": "system"})
    mended = target.with_mend(method.fit(target, DATA, seed=0))
    mended.generate([Conversation.ask("x", blank_image(8)), Conversation.ask("y")], SMALL)
    roles = {_words(body): [message["role"] for message in body["messages"]] for body in peer.bodies}
    assert roles == {"x": ["system", "user"], "y": ["user"]}  # only requests with an image are mended
    assert mended.id.startswith(f"{target.id}+safety_prompt@")


def test_ecso_reviews_replies_and_answers_again_without_the_image(target: ApiTarget, peer: Peer) -> None:
    questions = {"check": "Is it bad? {prompt}{reply}", "alarm": "I heard Is", "caption": "see {prompt}",
                 "again": "again {caption} {prompt}"}  # fmt: skip
    mended = target.with_mend(registry.make_method("ecso", questions).fit(target, DATA, seed=0))
    replies = mended.generate([Conversation.ask("x", blank_image(8)), Conversation.ask("y")], SMALL)
    assert [reply.text for reply in replies] == ["I heard again I heard see x x", "I heard y"]
    again = next(body for body in peer.bodies if _words(body).startswith("again"))
    assert isinstance(again["messages"][-1]["content"], str)  # its image has stayed behind


def test_a_review_that_has_no_answer_fails_its_own_request_only(target: ApiTarget) -> None:
    questions = {"check": "crash {prompt}{reply}"}
    mended = target.with_mend(registry.make_method("ecso", questions).fit(target, DATA, seed=0))
    with pytest.raises(BatchProblem, match=r"1 of 2.*boom") as caught:
        mended.generate([Conversation.ask("x", blank_image(8)), Conversation.ask("y")], SMALL)
    assert isinstance(caught.value.outcomes[1], Reply)


def test_mends_that_act_inside_are_refused_with_the_reason(target: ApiTarget) -> None:
    made = registry.make_method("safety_prompt", {}).fit(target, DATA, seed=0)
    inside = replace(made, edits=(AddVector(Site("language", 0), torch.ones(4)),))
    with pytest.raises(NeedsAccess, match="AddVector"):
        target.with_mend(inside)
    assert target.with_mend(inside.scaled(0.0)).edits == ()  # at scale 0 it is the base
    with pytest.raises(MendMismatch):
        ApiTarget.of("api:other", target.endpoint.base_url).with_mend(made)


def test_an_api_gives_replies_and_fakes_nothing_deeper(target: ApiTarget) -> None:
    assert levels_of(target) == ("replies",)
    with pytest.raises(BadParameter, match="end token"):
        ask(target, "x", Sampling(5, least=5))


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_method_works_where_replies_are_enough_and_is_refused_before_any_work_elsewhere(
    name: str, target: ApiTarget, peer: Peer
) -> None:
    method = registry.make_method(name, {})
    if method.works_on == "chat" and method.needs == "replies":
        assert target.with_mend(method.fit(target, method.sample_data() or DATA, seed=0)).edits
    else:
        with pytest.raises(VlmendError, match=f"{method.name} (needs the .* of api:m, of which only replies|works on)"):
            method.fit(target, DATA, seed=0)
    assert peer.bodies == []


def test_an_audit_over_http_keeps_no_key_and_asks_nothing_twice(
    target: ApiTarget, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    peer.key = KEY
    plan = Plan(("safety",), limit=2)
    first = audit(target, plan, tmp_path, judges=RULES)
    asked = len(peer.bodies)
    assert asked == 18  # two harmful requests in five ways, four harmless ones in two
    assert audit(target, plan, tmp_path, judges=RULES) == first
    assert len(peer.bodies) == asked
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 3
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


def test_in_a_batch_one_bad_request_fails_alone_and_the_others_are_written_down(target: ApiTarget) -> None:
    written: list[str] = []
    batcher = Batcher(4, lambda rows: written.extend(row[3].text for row in rows))
    futures = [batcher.submit(target, Conversation.ask(words), SMALL) for words in ("one", "crash", "two")]
    assert (futures[0].result(10).text, futures[2].result(10).text) == ("I heard one", "I heard two")
    with pytest.raises(SampleError, match="boom"):
        futures[1].result(10)
    assert sorted(written) == ["I heard one", "I heard two"]
    batcher.close()


def _data(folder: Path, *prompts: str) -> Path:
    rows = [{"id": f"{k}", "prompt": prompt, "label": "harmful"} for k, prompt in enumerate(prompts)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "data.jsonl"


def test_an_unanswered_request_is_unscored_with_its_reason_also_after_a_resume(
    target: ApiTarget, peer: Peer, tmp_path: Path
) -> None:
    plan = Plan(("safety/alignment_gap",), data=str(_data(tmp_path, "fine", "crash", "busy 0")))
    first = audit(target, plan, tmp_path / "run", judges=RULES)
    query = next(row for row in first if (row.name, row.group) == ("unsafe_rate", "query"))
    assert (query.n, query.unscored) == (2, 1)
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    bad = next(row for row in rows if row["id"] == "1:query")
    assert (bad["label"], "boom" in bad["reason"]) == ("unscored", True)
    asked = len(peer.bodies)
    assert audit(target, plan, tmp_path / "run", judges=RULES) == first
    for log in (tmp_path / "run" / "logs").glob("*.eval"):
        log.unlink()
    assert audit(target, plan, tmp_path / "run", judges=RULES) == first
    assert not any(
        '"fine"' in json.dumps(body) for body in peer.bodies[asked:]
    )  # only what has no reply is asked again


def test_a_run_that_an_outage_stopped_goes_on_and_asks_nothing_twice(
    target: ApiTarget, peer: Peer, tmp_path: Path
) -> None:
    plan = Plan(("safety/alignment_gap",), data=str(_data(tmp_path, *(f"request {k}" for k in range(4)))))
    one = ApiTarget(replace(target.endpoint, at_once=1))
    peer.dies_after = 7
    with pytest.raises(ModelProblem, match="out of order"):
        audit(one, plan, tmp_path / "run", judges=RULES, batch=4)
    kept = len((tmp_path / "run" / "replies.jsonl").read_text().splitlines())
    assert kept == 7
    peer.dies_after = 10_000
    before = len(peer.bodies)
    card = audit(one, plan, tmp_path / "run", judges=RULES, batch=4)
    assert len(peer.bodies) - before == 20 - kept
    assert sum(row.unscored for row in card) == 0


def test_the_command_line_audits_an_api_and_mends_its_words(peer: Peer, tmp_path: Path) -> None:
    def vlmend(*arguments: str) -> None:
        app(args=[*arguments, "--api-base", peer.base], standalone_mode=False)

    out = str(tmp_path / "base")
    vlmend("audit", "api:m", "--suite", "safety", "--limit", "4", "--judge", "rules", "--out", out)
    assert len(peer.bodies) == 36  # four harmful requests in five ways, eight harmless ones in two
    vlmend("audit", "api:m", "--suite", "safety", "--limit", "4", "--judge", "rules", "--out", out)
    assert len(peer.bodies) == 36
    vlmend("mend", "safety_prompt", "--model", "api:m", "--out", str(tmp_path / "mend"))
    vlmend("audit", "api:m", "--suite", "safety", "--limit", "1", "--judge", "rules",
           "--mend", str(tmp_path / "mend"), "--out", f"{out}2")  # fmt: skip
    assert not (tmp_path / "base2" / "states.json").exists()
    assert json.loads((tmp_path / "base2" / "run.json").read_text())["target"].startswith("api:m@")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mend", "cmrm", "--model", "api:m", "--api-base", "http://a/v1"], "needs the states"),
        (["mend", "vlguard", "--model", "api:m", "--api-base", "http://a/v1"], "weights"),
    ],
)
def test_what_looks_inside_is_refused_on_the_command_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(NeedsAccess, match=said):
        app(args=[*arguments, "--out", str(tmp_path)], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit", "api:m"], "--api-base"),
        (["audit", "api:m", "--api-base", "http://a/v1", "--dtype", "float32"], "not loaded"),
        (["audit", "phantom", "--api-base", "http://a/v1"], "is none"),
    ],
)
def test_options_of_one_kind_of_model_are_refused_for_the_other(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UsageError, match=said):
        app(args=[*arguments, "--out", str(tmp_path)], standalone_mode=False)


def test_no_api_model_grades_itself(target: ApiTarget, peer: Peer, tmp_path: Path) -> None:
    itself = GraderJudge("openai/m", lambda: get_model("vlmend/api:m", base_url=peer.base))
    with pytest.raises(UsageError, match="grade itself"):
        audit(target, Plan(("safety",), limit=1), tmp_path, judges=[itself])


def test_inspect_reaches_an_api_model_by_name(peer: Peer) -> None:
    model = get_model("vlmend/api:m", base_url=peer.base, memoize=False)
    output = asyncio.run(model.generate("hello"))
    assert (output.completion, output.stop_reason) == ("I heard hello", "stop")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Future[float]]]:
    """Ctrl-C once so many answers have come to whoever asked; gives the time at which it was pressed."""
    came, honest = threading.Semaphore(0), _Asker._outcome

    def counted(asker: _Asker, *given: Any) -> Any:
        found = honest(asker, *given)
        came.release()
        return found

    def after(answers: int, pressed: Future[float]) -> None:
        for _ in range(answers):
            assert came.acquire(timeout=30)
        time.sleep(0.2)  # the last one is handed over
        pressed.set_result(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # where Ctrl-C of a terminal goes

    def begin(answers: int) -> Future[float]:
        pressed: Future[float] = Future()
        threading.Thread(target=after, args=(answers, pressed), daemon=True).start()
        return pressed

    monkeypatch.setattr(_Asker, "_outcome", counted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever libraries have left
    yield begin
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_no_slow_endpoint_and_keeps_what_was_answered(
    target: ApiTarget, tmp_path: Path, interrupted: Callable[[int], Future[float]]
) -> None:
    many = ApiTarget(replace(target.endpoint, at_once=2, timeout_s=60.0))
    asked = [Wanted(partial(Conversation.ask, words), SMALL) for words in ("one", "two", "hang for long enough")]
    interrupted(2)
    with pytest.raises(KeyboardInterrupt):
        Desk(tmp_path).ask(many, asked)
    assert sorted(reply.text for reply in Journal(tmp_path / "replies.jsonl").replies()) == [
        "I heard one",
        "I heard two",
    ]


def test_the_first_ctrl_c_of_an_audit_waits_for_no_slow_endpoint(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    interrupted: Callable[[int], Future[float]],
) -> None:  # fmt: skip
    """Of each of two rows there are four questions in its own words and one in which a caption comes first."""
    run = tmp_path / "run"
    arguments = ["--api-base", peer.base, "--suite", "alignment_gap", "--judge", "rules", "--out", str(run)]
    data = str(_data(tmp_path, "fine", "hang for long"))
    monkeypatch.setattr(sys, "argv", ["vlmend", "audit", "api:m", "--data", data, *arguments])
    pressed = interrupted(6)
    with pytest.raises(SystemExit) as left:
        main()
    assert time.monotonic() - pressed.result() < 3
    assert left.value.code == 130
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "stopping; what was answered is kept",
        "stopped. Run the same command again to go on: finished replies are kept.",
    ]
    assert len(Journal(run / "replies.jsonl").keys) == 6


def test_an_endpoint_that_falters_once_more_at_the_harmless_request_is_not_given_up(
    target: ApiTarget, peer: Peer
) -> None:
    peer.falters = 2
    with pytest.raises(SampleError, match="boom"):
        ask(target, "crash")
    assert peer.asked("Say: ok.") == 3


@pytest.mark.parametrize("fault", [429, 503, 302])
def test_what_a_passing_fault_left_unscored_the_same_command_asks_again(
    target: ApiTarget, peer: Peer, tmp_path: Path, fault: int
) -> None:
    plan = Plan(("safety/alignment_gap",), data=str(_data(tmp_path, "fine", "passing")))
    peer.fault = fault
    first = audit(target, plan, tmp_path / "run", judges=RULES)
    assert sum(row.unscored for row in first if row.group == "query") > 0
    peer.fault = 0
    before = len(peer.bodies)
    again = audit(target, plan, tmp_path / "run", judges=RULES)
    assert sum(row.unscored for row in again) == 0
    assert {_words(body) for body in peer.bodies[before:]} == {"passing"}
