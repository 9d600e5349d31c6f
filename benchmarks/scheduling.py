"""What the decode loop gains over plain transformers, and what reading every layer costs.

    python benchmarks/scheduling.py [loop] [audit] [capture] [--requests 200] [--write docs/performance.md]

`loop`: the same requests, each with a picture of its own, through transformers one at a time, in fixed batches
of 8 padded on the left, and through `VLM.generate`. `audit`: the five conditions of harmful requests with and
without what requests share (prefixes, image features). `capture`: the last position of every layer against
the bare forward pass and `output_hidden_states=True`. On the phantom; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from timing import Case, Table, interleaved, machine, peak_bytes, ratios, shown_ratio, write_tables
from torch import Tensor
from transformers import GenerationConfig

from vlmend import registry
from vlmend.audit.suite import builtin_picture
from vlmend.audit.suites.safety.alignment_gap import SUITE as GAP
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.sites import Site
from vlmend.data.requests import builtin_requests
from vlmend.data.sources import builtin_dataset
from vlmend.methods.safety.cmrm import CMRM
from vlmend.models.decoding.image_features import Seen
from vlmend.models.decoding.prefill import Workings
from vlmend.models.decoding.prefixes import Prefix, Prefixes
from vlmend.models.decoding.recall import Recall
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.reading.reader import Reader
from vlmend.models.reading.states import capturing
from vlmend.models.vlm import VLM

TOKENS = 24
SLICE = 50
NAIVE = 8
CAPTURED = 16


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], default=[])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    vlm = load(registry.model_folder("phantom"), name="phantom", options=LoadOptions("cpu"))
    if arguments.one:
        WAYS[arguments.one](vlm, requests(SLICE))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    tables = [SECTIONS[name](vlm, arguments.requests, arguments.rounds) for name in arguments.sections or SECTIONS]
    for table in tables:
        print(f"\n### {table.name}\n\n{table.markdown}")
    if arguments.write:
        write_tables(arguments.write, tables)


def requests(count: int) -> list[Conversation]:
    """Built-in requests of all kinds, each with a picture of its own."""
    held = [r for kind in ("harmful", "lookalike", "ordinary") for r in builtin_requests(kind, "held_out")]
    if count > len(held):
        raise SystemExit(f"there are {len(held)} held-out requests, not {count}")
    chosen = [held[k * len(held) // count] for k in range(count)]
    return [Conversation.ask(r.prompt, builtin_picture(k)[1]) for k, r in enumerate(chosen)]


def transformers_loop(size: int) -> Callable[[VLM, Sequence[Conversation]], list[Tensor]]:
    """Plain transformers in fixed batches: processor, `generate`, nothing else."""

    def run(vlm: VLM, batch: Sequence[Conversation]) -> list[Tensor]:
        plan = GenerationConfig(
            max_new_tokens=TOKENS, do_sample=False, eos_token_id=vlm.model.generation_config.eos_token_id,
            pad_token_id=vlm.model.generation_config.pad_token_id,
        )  # fmt: skip
        found: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(batch), size):
                inputs = vlm.reader.inputs(batch[start : start + size])
                out = vlm.model.generate(**inputs, generation_config=plan)
                found += list(out[:, inputs["input_ids"].shape[1] :])
        return found

    return run


def ours(vlm: VLM, batch: Sequence[Conversation]) -> list[Tensor]:
    """`VLM.generate`, nothing known from an earlier call."""
    replies = vlm.forgetful().generate(batch, Sampling(TOKENS))
    return [torch.tensor(vlm.processor.tokenizer(reply.text).input_ids) for reply in replies]


WAYS = {"one at a time": transformers_loop(1), "fixed batches of 8": transformers_loop(NAIVE), "VLM.generate": ours}


def loop(vlm: VLM, count: int, rounds: int) -> Table:
    """Requests a second of three ways, slice by slice in turns."""
    batch = requests(count)
    vlm.generate(batch[:2], Sampling(2))  # the trial of the loop is not part of it
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for start in range(0, count, SLICE):
        part = batch[start : start + SLICE]
        for name, way in WAYS.items():
            seconds[name].append(seconds_of(lambda way=way, part=part: way(vlm, part)))
    rows = [
        (
            name,
            f"{count / sum(found):.2f}",
            *(shown_ratio(ratios(seconds, other, name)) for other in list(WAYS)[:2]),
            f"{peak_process(name):.0f}",
        )
        for name, found in seconds.items()
    ]
    columns = ("way", "requests/s", "speed, ratio to one at a time", "to fixed batches", "peak of the process, MB")
    note = (
        f"{count} requests with a picture each, {TOKENS} new tokens, slices of {SLICE} in turns. "
        "Targets: 2 times one at a time, 1.3 times fixed batches."
    )
    return Table("loop", columns, tuple(rows), (note, machine(len(seconds["VLM.generate"]))))


def seconds_of(work: Callable[[], object]) -> float:
    """One call; no warm-up, since a slice takes a minute and the model is warm from the one before."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_process(way: str) -> float:
    """Peak resident memory of a process that answers one slice, in MB."""
    command = [sys.executable, __file__, "--one", way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


class NothingShared(Prefixes):
    """Finds no prefix worth sharing."""

    def of(self, reader: Reader, conversation: Conversation) -> Prefix:
        """A prefix that shares nothing."""
        return Prefix(torch.empty(0, dtype=torch.long), 0, 0, ())


class NothingSeen(Seen):
    """Forgets every image at once."""

    def keep(self, key: str, features: Tensor) -> None:
        """Keep nothing."""


class NothingRecalled(Recall):
    """Forgets every prompt at once."""

    def keep(
        self, digests: Sequence[str], last: Tensor, layers: Sequence[tuple[Tensor, Tensor]], mask: Tensor,
        offsets: Tensor,
    ) -> None:  # fmt: skip
        """Keep nothing."""


def audit(vlm: VLM, count: int, rounds: int) -> Table:
    """The five conditions with and without what requests share: of one model, and of it and its mended view."""
    questions = GAP.questions(None, max(4, count // 5))
    batch = [question.conversation(vlm.image_side) for question in questions]
    anchors = builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
    few = replace(anchors, examples=anchors.examples[:16])
    mended = vlm.with_mend(CMRM(alpha=0.6).fit(vlm, few, seed=0))
    vlm.generate(batch[:2], Sampling(2))

    def run(views: Sequence[VLM], workings: Callable[[], Workings]) -> Callable[[], object]:
        def work() -> object:
            fresh = workings()
            return [replace(view, workings=fresh).generate(batch, Sampling(TOKENS)) for view in views]

        return work

    def nothing() -> Workings:
        return Workings(NothingShared(), NothingSeen(), NothingRecalled(), loop=vlm.workings.loop)

    def everything() -> Workings:
        return Workings(loop=vlm.workings.loop)

    rows: list[tuple[str, ...]] = []
    for name, views in (("one run", [vlm]), ("before and after", [vlm, mended])):
        plain = Case("nothing shared", run(views, nothing))
        shared = Case("prefixes, images, prompts shared", run(views, everything))
        seconds = interleaved([plain, shared], rounds)
        for kind, found in seconds.items():
            speed = shown_ratio(ratios(seconds, plain.name, kind))
            rows.append((name, kind, f"{len(views) * len(batch) / median(found):.2f}", speed))
    note = f"{len(batch)} requests a run: {len(batch) // 5} in five conditions, {TOKENS} new tokens. Target: 1.5 times."
    columns = ("audit", "what requests share", "requests/s", "speed, ratio")
    return Table("five conditions", columns, tuple(rows), (note, machine(rounds)))


def capture(vlm: VLM, count: int, rounds: int) -> Table:
    """Reading the last position at every layer."""
    inputs = vlm.reader.inputs(requests(CAPTURED))
    sites = [Site("language", layer) for layer in range(vlm.layers)]

    def states() -> object:
        with capturing(vlm.anatomy, sites) as found:
            vlm.reader.forward(inputs)
        return found

    def everything() -> object:
        out = vlm.model(**inputs, use_cache=False, logits_to_keep=1, output_hidden_states=True)
        return [state[:, -1].clone() for state in out.hidden_states]

    def bare() -> object:
        return vlm.reader.forward(inputs)

    with torch.inference_mode():
        cases = [Case("bare forward pass", bare), Case("capturing, every layer", states)]
        cases += [Case("output_hidden_states=True", everything)]
        seconds = interleaved(cases, rounds * 4)
        peaks = {case.name: peak_bytes(case.work) / 1e6 for case in cases}
    rows = [
        (name, f"{median(found):.3f}", shown_ratio(ratios(seconds, name, "bare forward pass")), f"{peaks[name]:.1f}")
        for name, found in seconds.items()
    ]
    columns = ("what", "seconds", "time, ratio", "peak beyond weights, MB")
    note = f"{CAPTURED} requests with a picture each, {vlm.layers} layers. Target: 1.03."
    return Table("capture", columns, tuple(rows), (note, machine(rounds * 4)))


SECTIONS = {"loop": loop, "audit": audit, "capture": capture}

if __name__ == "__main__":
    main()
