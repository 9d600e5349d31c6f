"""The lines with which the guide on serving begins, as they stand there: a newcomer types them and no others."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from tests.serving.serving import mend_of, started, vector
from typer.main import get_command

from vlmend.cli import app
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import AddVector
from vlmend.core.images import Image
from vlmend.core.sites import Site
from vlmend.testing import tiny_vlm

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "serve.md").read_text("utf-8")
START = GUIDE.partition("\n## ")[0]
(BLOCK,) = re.findall(r"```python\n(.*?)```", START, re.DOTALL)
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (.+)$", START.replace(BLOCK, ""), re.MULTILINE)]


class Stub:
    """As much of `openai.OpenAI` as the guide uses."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url, self.api_key = base_url, api_key
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    def create(self, **body: Any) -> Any:
        head = {"authorization": f"Bearer {self.api_key}"}
        place = f"{self.base_url}/chat/completions"
        told = httpx.post(place, json=body, headers=head, timeout=60, trust_env=False).raise_for_status().json()
        choices = [SimpleNamespace(message=SimpleNamespace(**one["message"])) for one in told["choices"]]
        return SimpleNamespace(choices=choices, vlmend=told["vlmend"])


@pytest.mark.parametrize("client", ["stub", "openai"])
def test_the_clients_lines_print_what_generate_says(
    client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if client == "openai":
        pytest.importorskip("openai", reason="the real client: python -m tools.clients runs it in its own environment")
    else:
        stub = ModuleType("openai")
        vars(stub)["OpenAI"] = Stub
        monkeypatch.setitem(sys.modules, "openai", stub)
    monkeypatch.chdir(tmp_path)
    (code,) = [words[2] for words in COMMANDS if words[:2] == ["python", "-c"]]
    exec(code, {})
    (picture,) = tmp_path.iterdir()
    base = tiny_vlm(seed=0)
    mended = base.with_mend(mend_of(base, AddVector(Site("language", 1), vector(1), "last", "with_image")))
    with started({"base": base, "base+auto": mended}) as (address, _):
        assert "http://127.0.0.1:8123" in BLOCK
        exec(BLOCK.replace("http://127.0.0.1:8123", address), {})
    asked = [Conversation.ask("What is in this picture?", Image.from_path(picture))]
    told = [view.generate(asked, Sampling(24))[0].text for view in (base, mended)]
    digests = [mend.digest for mend in mended.mends]
    lines = capsys.readouterr().out
    assert lines.startswith(f"base {told[0]} [] 0\nbase+auto {told[1]} ")
    assert digests[0] in lines
    assert int(lines.split()[-1]) > 0
    assert told[0] != told[1]


def test_the_commands_are_understood_and_name_what_the_clients_lines_ask_for() -> None:
    lines = [words[1:] for words in COMMANDS if words[0] == "vlmend"]
    parsed = {words[0]: get_command(app).commands[words[0]].make_context(words[0], words[1:]).params for words in lines}
    assert [*parsed] == ["mend", "serve"]
    (served,) = parsed["serve"]["mend"]
    assert Path(served) == parsed["mend"]["out"]
    assert f'"base+{Path(served).name}"' in BLOCK
    assert f":{parsed['serve']['port']}/v1" in BLOCK
    assert parsed["mend"]["model"] == parsed["serve"]["model"]
