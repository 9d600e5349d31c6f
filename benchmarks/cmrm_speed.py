"""What CMRM costs on the phantom: its fit, its use, and the extra reads of its sample level.

    python benchmarks/cmrm_speed.py [fit] [apply] [sample] [--quick] [--json] [--write docs/performance.md]

All sections unless some are named. `apply` compares with other libraries: it makes an environment for them
in the cache folder (see `peers.py`) and runs itself there. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from peers import Peer, bare, peer_python, peers
from timing import Case, Table, interleaved, machine, peak_bytes, ratios, shown_ratio, write_tables
from torch import Tensor
from transformers import GenerationConfig

from vlmend import registry
from vlmend.audit.suite import builtin_picture
from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.edits import ContrastShift
from vlmend.core.examples import Example
from vlmend.core.images import Image, blank_image
from vlmend.core.sites import Site
from vlmend.data.sources import builtin_dataset
from vlmend.methods.reading import as_text, batches, sites_of, with_image
from vlmend.methods.safety.cmrm import CMRM, measure_shift
from vlmend.methods.safety.cmrm_sample import CMRMSample
from vlmend.models.decoding.prefixes import Prefixes, sharing
from vlmend.models.decoding.shifts import row_shifts
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

ROWS = 16
TOKENS = 32
ANCHORS = builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
SYSTEM = (
    "You are a careful and friendly assistant who looks at pictures with people. Answer in one or two short "
    "sentences, say what you see and what you do not know, and never make anything up. If a question has "
    "nothing to do with the picture, answer the question."
)
FLOOR = "bare forward passes"
BASE = "no mend"


def main() -> None:
    """Run the sections that were asked for, print or write their tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], default=[])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, anchors and tokens")
    parser.add_argument("--rounds", type=int, default=0, help="9 unless told, 2 with --quick")
    parser.add_argument("--tiny", action="store_true", help="a random model of a few thousand weights")
    parser.add_argument("--json", action="store_true", help="one table a line")
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tables: list[Table] = []
    for name in arguments.sections or SECTIONS:
        rounds = arguments.rounds or (2 if arguments.quick else 9)
        if name == "apply" and not arguments.inside:
            tables += among_peers(rounds, arguments.quick, arguments.tiny)
        else:
            tables += SECTIONS[name](model(arguments.tiny), rounds, arguments.quick)
    if arguments.write:
        write_tables(arguments.write, tables)
    for table in tables:
        print(table.json if arguments.json else f"\n### {table.name}\n\n{table.markdown}")


def model(tiny: bool) -> VLM:
    """The phantom; or a model so small that this script can be tried out in a minute."""
    return tiny_vlm() if tiny else load(registry.model_folder("phantom"), name="phantom", options=LoadOptions("cpu"))


def requests(count: int) -> list[Conversation]:
    """Built-in requests of all kinds, each with a picture of its own."""
    step = len(ANCHORS.examples) // count
    chosen = ANCHORS.examples[::step][:count]
    return [Conversation.ask(example.prompt, builtin_picture(k)[1]) for k, example in enumerate(chosen)]


@torch.inference_mode()
def fit(vlm: VLM, rounds: int, quick: bool) -> list[Table]:
    """`measure_shift` against the forward passes that it cannot do without."""
    image = blank_image(vlm.image_side)
    total = len(ANCHORS.examples)
    counts = (ROWS, 2 * ROWS) if quick else (2 * ROWS, 8 * ROWS)
    weights = sum(p.numel() * p.element_size() for p in vlm.model.parameters())
    rows: list[tuple[str, ...]] = []
    for count in counts:
        anchors = ANCHORS.examples[:: total // count][:count]
        cases = [
            Case(FLOOR, lambda anchors=anchors: forward_passes(vlm, anchors, image)),
            Case("measure_shift", lambda anchors=anchors: measure_shift(vlm, anchors, image)),
            Case("output_hidden_states", lambda anchors=anchors: all_states(vlm, anchors, image)),
        ]
        seconds = interleaved(cases, rounds)
        peaks = {case.name: peak_bytes(case.work) for case in cases}
        for name, found in seconds.items():
            whole = (weights + peaks[name]) / (weights + peaks[FLOOR])
            rows.append(
                (str(count), name, f"{median(found):.2f}", shown_ratio(ratios(seconds, name, FLOOR)),
                 f"{peaks[name] / 1e6:.1f}", f"{whole:.3f}")
            )  # fmt: skip
    columns = ("requests", "what", "seconds", "time, ratio", "peak beyond weights, MB", "peak with weights, ratio")
    notes = (f"Targets: time ≤ 1.05, peak ≤ 1.05, for any number of requests. Weights {weights / 1e6:.0f} MB.",)
    return [Table("fit", columns, tuple(rows), (*notes, machine(rounds)))]


def forward_passes(vlm: VLM, anchors: Sequence[Example], image: Image) -> None:
    """Both prefills of every anchor in the fit's own batches, nothing read."""
    for batch in batches(anchors):
        for asking in (as_text, with_image(image)):
            vlm.reader.forward(vlm.reader.inputs([asking(anchor) for anchor in batch]))


def all_states(vlm: VLM, anchors: Sequence[Example], image: Image) -> Tensor:
    """The mean shift the usual way: every state of every token is kept until its batch is done."""
    total = torch.zeros(())
    for batch in batches(anchors):
        means: list[Tensor] = []
        for asking in (as_text, with_image(image)):
            inputs = vlm.reader.inputs([asking(anchor) for anchor in batch])
            found = vlm.model(**inputs, use_cache=False, logits_to_keep=1, output_hidden_states=True)
            means.append(torch.stack([states[:, -1].sum(0) for states in found.hidden_states[1:]]))
        total = total + means[1] - means[0]
    return total / len(anchors)


def among_peers(rounds: int, quick: bool, tiny: bool) -> list[Table]:
    """The section `apply`, run in the environment that has the peers."""
    command = [peer_python(), __file__, "apply", "--inside", "--json", "--rounds", rounds]
    command += ["--quick"] * quick + ["--tiny"] * tiny
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return [Table.from_json(line) for line in done.stdout.splitlines() if line.startswith("{")]


@torch.inference_mode()
def apply(vlm: VLM, rounds: int, quick: bool) -> list[Table]:
    """Prefill and decoding with the mend, and with other libraries that add the same vectors."""
    image, batch = blank_image(vlm.image_side), requests(ROWS)
    cmrm = CMRM(alpha=0.6, mode="increment")
    edits = cmrm.edits_for(measure_shift(vlm, ANCHORS.examples[::4], image), range(vlm.layers))
    mend = cmrm.made(vlm, ANCHORS, 0, edits, {})
    steps = replace(mend, edits=tuple(replace(edit, tokens="last") for edit in edits))
    views = {BASE: vlm, "cmrm, prefill": vlm.with_mend(mend), "cmrm, every step": vlm.with_mend(steps)}
    others, missing = ready([bare(vlm), *peers(vlm, {e.site.layer: e.vector for e in edits})], vlm, batch)
    with unending(vlm):
        return [
            prefill(views, others, missing, vlm, batch, rounds),
            decode(views, others, missing, vlm, batch, rounds, 8 if quick else TOKENS),
        ]


def ready(
    found: Sequence[Peer | tuple[str, str]], vlm: VLM, batch: Sequence[Conversation]
) -> tuple[list[Peer], list[tuple[str, str]]]:
    """Peers that answer, and the others with the reason."""
    good: list[Peer] = []
    missing: list[tuple[str, str]] = []
    inputs = vlm.reader.inputs(batch[:2])
    for peer in found:
        if not isinstance(peer, Peer):
            missing.append(peer)
            continue
        try:
            with peer.around():
                peer.prefill(dict(inputs))
                peer.generate(dict(inputs), decoding(vlm, 2))
        except Exception as problem:  # whatever it is, its row says so
            missing.append((peer.name, f"cannot run here: {type(problem).__name__}: {problem}"))
        else:
            good.append(peer)
    return good, missing


def prefill(
    views: dict[str, VLM], others: Sequence[Peer], missing: Sequence[tuple[str, str]], vlm: VLM,
    batch: Sequence[Conversation], rounds: int,
) -> Table:  # fmt: skip
    """One read of a batch with pictures, from words and pixels to logits."""
    cases = [Case(name, lambda view=view: view.logits(batch)) for name, view in views.items()]
    cases += [Case(p.name, lambda p=p: p.prefill(vlm.reader.inputs(batch)), p.around) for p in others]
    seconds = interleaved(cases, rounds)
    wanted = views["cmrm, every step"].logits(batch)
    off = {name: (view.logits(batch) - wanted).abs().max() for name, view in views.items()}
    for peer in others:
        with peer.around():
            off[peer.name] = (peer.prefill(vlm.reader.inputs(batch)) - wanted).abs().max()
    rows = [
        (name, does, f"{median(seconds[name]):.3f}", shown_ratio(ratios(seconds, name, BASE)), f"{off[name]:.1e}")
        for name, does in described(views, others)
    ]
    rows += [(name, why, "", "", "") for name, why in missing]
    columns = ("prefill", "adds to", "seconds", "time, ratio to no mend", "logits, largest difference to cmrm")
    return Table("prefill", columns, tuple(rows), (f"{ROWS} requests with a picture each. {machine(rounds)}",))


def decode(
    views: dict[str, VLM], others: Sequence[Peer], missing: Sequence[tuple[str, str]], vlm: VLM,
    batch: Sequence[Conversation], rounds: int, tokens: int,
) -> Table:  # fmt: skip
    """Time of a token of the whole batch: the median time from one call of the model to the next, in each round."""
    named = described(views, others)
    taken: dict[str, list[float]] = {name: [] for name, _ in named}
    for turn in range(rounds + 1):
        for name, _ in named:
            view, peer = views.get(name), next((p for p in others if p.name == name), None)
            with peer.around() if peer else nullcontext(), called(vlm) as at:
                view.generate(batch, Sampling(tokens + 1)) if view else answered(peer, vlm, batch, tokens + 1)
            steps = [later - one for one, later in pairwise(at[-tokens:])]
            if turn:  # the first is a warm-up
                taken[name].append(median(steps))
    rows = [
        (name, does, f"{1000 * median(taken[name]):.1f}", f"{ROWS / median(taken[name]):.0f}",
         shown_ratio([1 / ratio for ratio in ratios(taken, name, BASE)]))
        for name, does in named
    ]  # fmt: skip
    rows += [(name, why, "", "", "") for name, why in missing]
    columns = ("decoding", "adds to", "ms a step", "tokens/s", "tokens/s, ratio to no mend")
    notes = ("Targets: cmrm at least 0.98 of no mend, and faster than each peer.", machine(rounds))
    return Table("decode", columns, tuple(rows), notes)


@contextmanager
def called(vlm: VLM) -> Generator[list[float]]:
    """When the model was called: seconds of the clock, filled in as it runs."""
    at: list[float] = []
    handle = vlm.model.register_forward_pre_hook(lambda *_: at.append(time.perf_counter()))
    try:
        yield at
    finally:
        handle.remove()


def described(views: dict[str, VLM], others: Sequence[Peer]) -> list[tuple[str, str]]:
    """Names of the rows, and where each adds."""
    ours = ("nothing", "last prompt token", "last token, every step")
    return [*zip(views, ours, strict=True), *((peer.name, peer.does) for peer in others)]


def answered(peer: Peer, vlm: VLM, batch: Sequence[Conversation], length: int) -> list[str]:
    """What `VLM.generate` does for its caller: words and pixels in, words out."""
    inputs = vlm.reader.inputs(batch)
    out = peer.generate(inputs, decoding(vlm, length))
    return vlm.processor.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def decoding(vlm: VLM, length: int) -> GenerationConfig:
    """Greedy, to the full length."""
    pad = vlm.model.generation_config.pad_token_id
    return GenerationConfig(max_new_tokens=length, do_sample=False, eos_token_id=None, pad_token_id=pad)


@contextmanager
def unending(vlm: VLM) -> Generator[None]:
    """No token ends a reply, so that every generation is as long as every other."""
    own = vlm.model.generation_config
    vlm.model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=own.pad_token_id)
    try:
        yield
    finally:
        vlm.model.generation_config = own


@torch.inference_mode()
def sample(vlm: VLM, rounds: int, quick: bool) -> list[Table]:
    """The two extra reads of a request, from the shared prefix and in full."""
    edit = ContrastShift(tuple(range(vlm.layers)), blank_image(vlm.image_side))
    mended = vlm.with_mend(CMRMSample().made(vlm, ANCHORS, 0, [edit], {}))
    sites, prefixes = sites_of(vlm), Prefixes()
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for count in (1, ROWS):
        batch = [Conversation((Turn("system", SYSTEM), *asked.turns)) for asked in requests(count)]
        blank = [asked.with_images(edit.image) for asked in batch]
        told = [asked.without_images() for asked in batch]
        shared = Case("shared prefix", lambda b=batch, t=told: row_shifts(vlm.reader, prefixes, edit, b, t))
        naive = Case("in full", lambda b=blank, t=told: two_reads(vlm, b, t, sites))
        cases = [
            naive, shared,
            Case("request, no mend", lambda b=batch: vlm.logits(b)),
            Case("request, cmrm_sample", lambda b=batch: mended.logits(b)),
        ]  # fmt: skip
        seconds = interleaved(cases, rounds)
        floors = {"in full": "in full", "shared prefix": "in full"}
        for name, found in seconds.items():
            floor = floors.get(name, "request, no mend")
            rows.append((str(count), name, f"{median(found):.3f}", shown_ratio(ratios(seconds, name, floor)), floor))
        both = " and ".join(sharing(vlm.reader, prefixes, c) for c in (blank[0], told[0]))
        lengths = vlm.reader.inputs(blank)["attention_mask"].sum(1).tolist()
        notes.append(f"{count} rows: shared {both}; a request has {min(lengths)} to {max(lengths)} tokens.")
        notes.append(f"Largest relative difference of the two reads' shifts: {off_by(shared, naive):.1e}.")
    columns = ("rows", "what", "seconds", "time, ratio", "relative to")
    return [Table("sample", columns, tuple(rows), ("Target: shared ≤ 0.5 of in full.", *notes, machine(rounds)))]


def two_reads(vlm: VLM, blank: Sequence[Conversation], told: Sequence[Conversation], sites: list[Site]) -> Tensor:
    """The shifts from two plain prefills."""
    seen, unseen = vlm.reader.states(blank, sites), vlm.reader.states(told, sites)
    return torch.stack([seen[site] - unseen[site] for site in sites])


def off_by(shared: Case, naive: Case) -> float:
    """How far the shared shifts are from the plain ones; increments add up to them."""
    edits = shared.work()
    assert isinstance(edits, list)
    found = -torch.stack([edit.vectors for edit in edits]).cumsum(0)
    wanted = naive.work()
    assert isinstance(wanted, Tensor)
    return float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


Section = Callable[[VLM, int, bool], list[Table]]
SECTIONS: dict[str, Section] = {"fit": fit, "apply": apply, "sample": sample}


if __name__ == "__main__":
    main()
