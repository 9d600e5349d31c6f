"""What the audits of memory cost beside the bare forward passes that they cannot do without; target 0.8 of their speed.

    python benchmarks/memory_speed.py              # the table, on standard output
    python benchmarks/memory_speed.py --write      # ... and into docs/performance.md

privacy/membership of phantom-clip: each pair, and its picture changed in several ways; the floor is both towers on
pictures that lie ready as tensors. privacy/exposure of a small random LLaVA: each code and 255 others behind its
question; the floor is the model on the same rows, read in full, that lie ready as tensors. Both audits start from data
sets and end with samples.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from timing import Case, Table, interleaved, machine, ratios, shown_ratio, write_tables

from vlmend.audit.secrets import ALPHABET, MOST
from vlmend.audit.separating import pairs_of, words_of
from vlmend.audit.suites.privacy.exposure import SUITE as EXPOSURE
from vlmend.audit.suites.privacy.membership import SUITE as MEMBERSHIP
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.metrics.exposure import alternatives
from vlmend.models.dual.encoder import BATCH
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.phantom.clip.queries import pool
from vlmend.pictures.changes import variants
from vlmend.testing import tiny_vlm
from vlmend.training.batches import Row, reply_batch

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
CANARIES, PAIRS = 8, 64
TARGET = 0.8

Timed = tuple[str, Callable[[], object], Callable[[], object]]


def membership() -> Timed:
    """Both towers on ready pictures, and the suite on the same pairs."""
    clip = load_dual(phantom_clip(), name="phantom-clip")
    rows = pairs_of(pool())
    chosen = [
        row for kind in ("yes", "no") for row in [r for r in rows if r.attributes["member"] == kind][: PAIRS // 2]
    ]
    pictures = [row.image for row in chosen if row.image is not None]
    shown = [*pictures, *(Image.from_pixels(one) for image in pictures for one in variants(image.decode()))]
    ready = [clip.pixels(shown[k : k + BATCH]) for k in range(0, len(shown), BATCH)]
    words = [words_of(row) for row in chosen]

    @torch.no_grad()
    def bare() -> None:
        for one in ready:
            clip.embed_pixels(one)
        clip.embed_texts(words)

    data = Dataset("members", tuple(chosen))
    return f"membership, {len(chosen)} pairs", bare, lambda: MEMBERSHIP.samples(clip, data, None, seed=0)


def exposure() -> Timed:
    """The model on every code of every canary, read in full, and the suite on the same canaries."""
    model = tiny_vlm(seed=0)
    rng = random.Random("memory speed")
    rows = [
        Example(
            f"canary {k}", f"what is the code of person {k}?", image=noise_image(32, k),
            answers=(" ".join(rng.choices("0123456789", k=3)),), attributes={"repeats": "1", ALPHABET: "0123456789"},
        )
        for k in range(CANARIES)
    ]  # fmt: skip
    told = [
        Row(row.conversation, code, False)
        for row in rows
        for code in [row.answers[0], *alternatives(row.answers[0], "0123456789", MOST, rng)]
    ]
    ready = [reply_batch(model.reader, told[k : k + BATCH]) for k in range(0, len(told), BATCH)]

    @torch.no_grad()
    def bare() -> None:
        for inputs, labels in ready:
            model.model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False)

    data = Dataset("canaries", tuple(rows))
    return f"exposure, {CANARIES} codes among {MOST + 1}", bare, lambda: EXPOSURE.samples(model, data, None, seed=0)


def timed(rounds: int) -> Table:
    """Each audit and its floor in turns; speed is the floor's time over the audit's."""
    lines: list[tuple[str, ...]] = []
    for name, bare, audit in (membership(), exposure()):
        seconds = interleaved([Case("bare", bare), Case("audit", audit)], rounds, time.process_time)
        speed = [1 / one for one in ratios(seconds, "audit", "bare")]
        lines.append((name, *(f"{median(seconds[one]):.2f}" for one in ("bare", "audit")), shown_ratio(speed)))
    notes = (f"Seconds of this process's CPU. Target: {TARGET} of the speed of the bare passes.", machine(rounds))
    return Table("memory", ("what", "bare passes, s", "audit, s", "speed, ratio"), tuple(lines), notes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table = timed(asked.rounds)
    print(table.markdown)
    if asked.write:
        write_tables(PAGE, [table])
