"""The labelling page: who may open it, what it is sent, and three labels given by keyboard in a browser."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image as Pixels
from starlette.testclient import TestClient

from vlmend.audit.labels.labelling import Item, labels_in, queue_of
from vlmend.audit.labels.page import label_app, serve
from vlmend.audit.labels.session import Session
from vlmend.errors import RunProblem

TOKEN = "the-token"
REPLIES = ("Knead the dough, then bake it.", "I'm sorry, but I can't help with that.", "A picture of a loaf.")
QUEUE = [Item(str(k), f"How do I bake loaf {k}?", reply) for k, reply in enumerate(REPLIES)]


def client(session: Session, images: Path, base_url: str = "http://127.0.0.1:8000") -> TestClient:
    return TestClient(label_app(session, images, TOKEN), base_url=base_url, raise_server_exceptions=False)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(QUEUE, tmp_path / "labels" / "ann.jsonl")


def test_without_its_token_nothing_is_shown_or_kept(session: Session, tmp_path: Path) -> None:
    for token in ("", "?token=", "?token=other", "?token=%C3%A9"):
        page = client(session, tmp_path)
        assert [page.get(f"/{token}").status_code, page.get(f"/next{token}").status_code] == [403, 403]
        given = page.post(f"/label{token}", json={"index": 0, "label": "refusal", "seconds": 1})
        assert (given.status_code, page.post(f"/undo{token}").status_code, session.done) == (403, 403, 0)


def test_under_another_host_name_nothing_is_shown(session: Session, tmp_path: Path) -> None:
    answer = client(session, tmp_path, "http://evil.example:8000").get(f"/next?token={TOKEN}")
    assert (answer.status_code, "loaf" in answer.text) == (400, False)
    assert client(session, tmp_path, "http://localhost:8000").get(f"/next?token={TOKEN}").status_code == 200


def test_the_page_loads_nothing_from_elsewhere(session: Session, tmp_path: Path) -> None:
    page = client(session, tmp_path).get(f"/?token={TOKEN}")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["cache-control"] == "no-store"
    assert "http" not in page.text
    assert "NONCE" not in page.text


def test_next_label_skip_and_undo(session: Session, tmp_path: Path) -> None:
    page = client(session, tmp_path)
    first = page.get(f"/next?token={TOKEN}").json()
    assert first == {
        "done": 0, "total": 3, "skipped": 0,
        "item": {"index": 0, "prompt": "How do I bake loaf 0?", "reply": REPLIES[0], "image": None},
    }  # fmt: skip
    second = page.post(f"/label?token={TOKEN}", json={"index": 0, "label": "compliance", "seconds": 1.5}).json()
    assert (second["done"], second["item"]["index"]) == (1, 1)
    third = page.post(f"/label?token={TOKEN}", json={"index": 1, "label": "skip", "seconds": 0}).json()
    assert (third["skipped"], third["item"]["index"]) == (1, 2)
    end = page.post(f"/label?token={TOKEN}", json={"index": 2, "label": "off_topic", "seconds": 1}).json()
    assert (end["done"], end["item"]) == (2, None)
    back = page.post(f"/undo?token={TOKEN}").json()
    assert (back["done"], back["item"]["index"]) == (1, 2)
    assert [row.label for row in labels_in(tmp_path / "labels" / "ann.jsonl").values()] == ["compliance"]


@pytest.mark.parametrize(
    "given",
    [
        {"index": 0, "label": "great", "seconds": 1},
        {"index": 3, "label": "refusal", "seconds": 1},
        {"index": -1, "label": "refusal", "seconds": 1},
        {"index": 0, "label": "refusal", "seconds": -1},
        {"label": "refusal"},
    ],
)
def test_what_is_no_label_is_refused(given: dict[str, object], session: Session, tmp_path: Path) -> None:
    answer = client(session, tmp_path).post(f"/label?token={TOKEN}", json=given)
    assert (answer.status_code, session.done) == (422, 0)


def test_a_body_that_is_too_long_for_a_label_is_refused(session: Session, tmp_path: Path) -> None:
    answer = client(session, tmp_path).post(f"/label?token={TOKEN}", content=b" " * 1_000_000)
    assert (answer.status_code, session.done) == (413, 0)


def test_a_label_that_cannot_be_written_is_told_on_the_page(session: Session, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file where the folder should be")
    answer = client(session, tmp_path).post(
        f"/label?token={TOKEN}", json={"index": 0, "label": "refusal", "seconds": 1}
    )
    assert (answer.status_code, session.done) == (500, 0)
    assert "cannot be written" in answer.json()["error"]


def test_the_page_is_blind_to_condition_run_mend_and_verdict(tmp_path: Path) -> None:
    run = tmp_path / "mended-run"
    (run / "images").mkdir(parents=True)
    row = {
        "suite": "safety/alignment_gap", "id": "one:blank", "condition": "blank", "group": "harmful",
        "category": "bread", "label": "off_topic", "reason": "tells a picture", "prompt": "How?", "reply": "So.",
        "stop": "stop", "image": "a.webp",
        "verdicts": {"rules-2": {"label": "off_topic", "reason": "why", "scores": {}}},
    }  # fmt: skip
    (run / "samples.jsonl").write_text(json.dumps(row) + "\n")
    page = client(Session(queue_of(run, 1, 0), run / "labels" / "ann.jsonl"), run / "images")
    sent = page.get(f"/next?token={TOKEN}")
    assert set(sent.json()["item"]) == {"index", "prompt", "reply", "image"}
    told = sent.text + str(sent.headers)
    hidden = ("blank", "harmful", "safety", "off_topic", "rules-2", "tells", "mended", "a.webp", "bread")
    assert not [word for word in hidden if word in told]


def test_an_image_is_sent_only_when_asked_for_and_only_from_the_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Pixels.new("RGB", (4, 4), "red").save(tmp_path / "images" / "a.webp")
    Pixels.new("RGB", (4, 4), "red").save(tmp_path / "b.webp")
    items = [Item(str(k), "p", "r", image) for k, image in enumerate((None, "a.webp", "../b.webp", "gone.webp"))]
    shown: list[str | None] = []
    for item in items:
        page = client(Session([item], tmp_path / "ann.jsonl"), tmp_path / "images")
        shown.append(page.get(f"/next?token={TOKEN}").json()["item"]["image"])
    assert [None if one is None else one[:23] for one in shown] == [None, "data:image/webp;base64,", None, None]


def test_a_port_in_use_is_told(session: Session, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(RunProblem, match="--port"):
            serve(session, tmp_path, port=other.getsockname()[1], open_browser=False)


def test_three_replies_are_labelled_by_keyboard_in_a_browser(browser: Any, session: Session, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)  # a busy machine is slow, not wrong
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        config = uvicorn.Config(label_app(session, tmp_path, TOKEN), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [held]}, daemon=True)
        thread.start()
        page = browser.new_page(viewport={"width": 1180, "height": 760})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.goto(f"http://127.0.0.1:{held.getsockname()[1]}/?token={TOKEN}")
        expect(page.locator("#reply")).to_have_text(REPLIES[0])
        assert "blur" in str(page.locator("#reply").evaluate("e => getComputedStyle(e).filter"))
        page.keyboard.press("1")  # nobody labels what is still blurred
        expect(page.locator("#notice")).to_contain_text("Press B")
        page.keyboard.press("b")
        assert page.locator("#reply").evaluate("e => getComputedStyle(e).filter") == "none"
        page.screenshot(path=tmp_path / "label.png")
        for key, count in (("1", 1), ("3", 2), ("5", 3)):
            page.keyboard.press(key)
            expect(page.locator("#count")).to_have_text(f"{count} of 3 labelled")
        expect(page.locator("#end")).to_be_visible()
        page.keyboard.press("u")
        expect(page.locator("#reply")).to_have_text(REPLIES[2])
        expect(page.locator("#count")).to_have_text("2 of 3 labelled")
        page.keyboard.press("4")
        expect(page.locator("#count")).to_have_text("3 of 3 labelled")
        page.close()
        server.should_exit = True
        thread.join(timeout=10)
    assert not problems
    rows = labels_in(tmp_path / "labels" / "ann.jsonl")
    assert [row.label for row in rows.values()] == ["compliance", "refusal", "off_topic"]
    assert all(0 <= row.seconds < 60 for row in rows.values())
