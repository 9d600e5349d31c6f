"""From the command line to an address: what is refused before anything is loaded, and the loop that closes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.serving.serving import mend_of, mends_that_share, started, vector

import vlmend
from vlmend.cli import main
from vlmend.core.edits import AddVector
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.errors import MendMismatch, NeedsAccess, UsageError
from vlmend.serving.run import views_of
from vlmend.serving.settings import Settings, named_mends, read_keys
from vlmend.testing import tiny_clip, tiny_vlm


def test_a_mend_is_served_under_its_folder_or_its_given_name() -> None:
    assert named_mends(["mends/cmrm", "b=mends/cmrm"]) == {"cmrm": Path("mends/cmrm"), "b": Path("mends/cmrm")}
    with pytest.raises(UsageError, match="Two mends are called cmrm"):
        named_mends(["a/cmrm", "b/cmrm"])
    with pytest.raises(UsageError, match="is no name"):
        named_mends(["a b=mends/cmrm"])


def test_keys_are_read_from_a_file_that_only_the_user_can_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(file)
    file.write_text("a-key-of-sixteen-letters\n\nanother-key-of-sixteen\n")
    file.chmod(0o640)
    with pytest.raises(UsageError, match="may be read by others"):
        read_keys(file)
    file.chmod(0o600)
    assert read_keys(file) == (b"a-key-of-sixteen-letters", b"another-key-of-sixteen")
    for bad in ("short\n", "a-key-of-sixteen-letters\nshort\n", "a key with blanks in it\n"):
        file.write_text(bad)
        with pytest.raises(UsageError, match=r"could be guessed|no key"):
            read_keys(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_others_reach_it_only_with_a_key(host: str) -> None:
    with pytest.raises(UsageError, match="no key is asked for"):
        Settings(host=host).check()
    Settings(host=host, keys=(b"a-key-of-sixteen-letters",)).check()
    for own in ("127.0.0.1", "::1", "localhost"):
        Settings(host=own).check()


def test_what_can_be_asked_for_is_base_and_each_mend_and_the_base_can_be_left_out() -> None:
    vlm = tiny_vlm(seed=0)
    mends = mends_that_share(vlm)
    assert [*views_of(vlm, mends)] == ["base", *(f"base+{name}" for name in mends)]
    assert [*views_of(vlm, mends, base=False)] == [f"base+{name}" for name in mends]
    with pytest.raises(UsageError, match="nothing to serve"):
        views_of(vlm, {}, base=False)
    with pytest.raises(MendMismatch):
        views_of(tiny_vlm(seed=1), mends)
    with pytest.raises((UsageError, NeedsAccess)):
        views_of(tiny_clip(), {})


def test_an_audit_of_the_served_mend_says_what_an_audit_of_the_mend_says(tmp_path: Path) -> None:
    vlm = tiny_vlm(seed=0)
    mend = mend_of(vlm, AddVector(Site("language", 1), vector(1), "last", "with_image"))
    data = vlmend.Dataset("mine", tuple(
        vlmend.Example(f"r{k}", f"Tell me {k}", image=noise_image(16, k), label="harmful") for k in range(3)
    ))  # fmt: skip
    with started({"base": vlm, "base+push": vlm.with_mend(mend)}) as (address, service):
        over = vlmend.audit(
            "api:base+push", "alignment_gap", tmp_path / "api", data=data, judges=["rules"], max_new_tokens=6,
            api_base=f"{address}/v1",
        )  # fmt: skip
        told = service.metrics.text().decode()
    here = vlmend.audit(
        vlm.with_mend(mend), "alignment_gap", tmp_path / "here", data=data, judges=["rules"], max_new_tokens=6
    )
    assert 'vlmend_edits_fired_total{model="base+push"}' in told
    replies = [replies_in(tmp_path / name, "original") for name in ("api", "here")]
    assert replies[0] == replies[1]
    assert len(set(replies[0])) > 1
    assert replies_in(tmp_path / "api", "text") == replies_in(tmp_path / "here", "text")
    assert [row.name for row in over] == [row.name for row in here]


def replies_in(run: Path, condition: str) -> list[str]:
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    return [row["reply"] for row in rows if row["condition"] == condition]


def test_the_verb_refuses_all_mistakes_at_once_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["vlmend", "serve", "phantom", "--host", "0.0.0.0", "--mend", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "2 things are wrong" in said
    assert "no key is asked for" in said


@pytest.mark.slow
def test_the_verb_serves_the_phantom_until_it_is_stopped() -> None:
    command = [sys.executable, "-m", "vlmend", "serve", "phantom", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.findall(r"http://127\.0\.0\.1:\d+/v1", line)[0]
        body = {"model": "base", "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 5}
        answer = httpx.post(f"{address}/chat/completions", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)
        assert server.stderr is not None
        assert "colour" not in server.stderr.read()
