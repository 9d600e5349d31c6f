"""The checks of stock clients, on clients that are none: what is right passes, what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest
from tools import clients
from tools.client_checks import KEY, TOKENS, Client, Messages, Said, checks

from vlmend.testing import tiny_vlm


class Refused(Exception):
    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status_code = status


class Scripted(Client):
    """Says what the case has."""

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__("nowhere")
        self.case = case

    def ask(self, model: str, messages: Messages, *, key: str = KEY, **sent: Any) -> Said:
        if model not in self.case["models"]:
            raise Refused(404, "There is no model nobody here.")
        if key != KEY:
            raise Refused(401, "This server wants a key.")
        if "stop" in sent:
            raise Refused(400, "stop: a reply ends where the model ends it.")
        drawn = "temperature" in sent
        every = [one for name, one in self.case["asked"].items() if (name == "drawn") is drawn]
        (said,) = [one["said"][model] for one in every if one["messages"] == messages]
        return Said(said["text"], tuple(said["tokens"]), said["stop"])

    def stream(self, model: str, messages: Messages, **sent: Any) -> Said:
        said = self.ask(model, messages, **sent)
        return Said(said.text, said.tokens, said.stop, pieces=2)


class Deaf(Scripted):
    """Leaves the temperature out and asks without a key."""

    def ask(self, model: str, messages: Messages, *, key: str = KEY, **sent: Any) -> Said:
        sent.pop("temperature", None)
        return super().ask(model, messages, **sent)


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    vlm = tiny_vlm()
    return clients.case_of({"base": vlm, "base+test": vlm.with_mend(clients.mend_of(vlm))})


def test_a_client_that_says_what_generate_says_passes_and_leaves_out_what_it_has_no_call_for(case: Any) -> None:
    found = checks(Scripted(case), case)
    assert {name: told for name, told in found.items() if told} == {}
    assert len(found) == 11
    assert "list of models" not in found


def test_what_a_client_gets_wrong_is_named(case: Any) -> None:
    found = checks(Deaf(case), case)
    assert [name for name, told in found.items() if told] == ["temperature and seed", "wrong key"]
    assert "it was answered" in (found["wrong key"] or "")


def test_the_requests_tell_temperature_and_mend_apart(case: Any) -> None:
    said = {name: one["said"]["base"]["text"] for name, one in case["asked"].items()}
    assert said["picture"] != said["drawn"]
    assert said["picture"] != case["asked"]["picture"]["said"]["base+test"]["text"]
    assert all(one["said"]["base"]["tokens"][1] <= TOKENS for one in case["asked"].values())


def test_the_guide_has_a_row_for_every_client() -> None:
    text = clients.PAGE.read_text()
    table = text.partition(clients.BEGIN)[2].partition(clients.END)[0]
    assert [name for name in clients.PACKAGES if f"| {name} |" not in table] == []
    assert clients.page(text, table.lstrip("\n")) == text
