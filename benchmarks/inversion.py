"""How long a picture takes to come back from the gradient that is shared of it, on phantom-clip; target 2 minutes.

    python benchmarks/inversion.py                        # the table, on standard output
    python benchmarks/inversion.py --write                # ... and into the page of privacy/gradient_inversion
    python benchmarks/inversion.py --picture              # draws docs/pictures/reconstructions.png, and long matching

One forward and backward pass of the same pair is the floor: what the client itself pays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
from timing import Case, Table, interleaved, machine, ratios, shown_ratio, write_tables

from vlmend.audit.suites.privacy.gradient_inversion import ARMS, SUITE, VICTIMS, Arm, Room
from vlmend.core.examples import Example, spread
from vlmend.core.metrics.reconstruction import psnr
from vlmend.core.splits import word_fraction
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.galleries import PHOTO, object_pictures
from vlmend.training.inversion import matched

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "suites" / "gradient_inversion.md", DOCS / "pictures" / "reconstructions.png"
TARGET_SECONDS, TARGET_PSNR = 120, 20
SHOWN, LARGER, LONG = 6, 2, 300


def room_of(clip: DualEncoder) -> tuple[Room, list[Example]]:
    """The suite's own room and victims on built-in pictures."""
    rows = [row for row in object_pictures("held_out").examples if row.answers]
    told = [replace(row, caption=PHOTO.format(row.answers[0])) for row in spread(rows, VICTIMS + 64)]
    told.sort(key=lambda row: word_fraction(row.id))
    return Room(clip, told[VICTIMS:], 0), told[:VICTIMS]


def attacked(clip: DualEncoder, row: Example) -> float:
    """From a loaded model to a rebuilt picture, the ridge chosen on public pairs on the way; its PSNR."""
    room, _ = room_of(clip)
    picture = room.picture(room.seen(row, ARMS[0]), room.ridge(ARMS[0]))
    return psnr(picture.numpy(), room.pixels([row]).values[0].double().numpy())


def timed(clip: DualEncoder, rounds: int) -> Table:
    """The attack on one pair beside the client's own pass, in turns."""
    room, victims = room_of(clip)
    row = victims[0]

    def passed() -> None:
        loss = room.client.loss([row], room.pixels([row]))
        torch.autograd.grad(loss, room.client.twin.parameters, allow_unused=True)

    found: list[float] = []
    attack, own = "attack on one pair", "the client's forward and backward pass"
    seconds = interleaved([Case(own, passed), Case(attack, lambda: found.append(attacked(clip, row)))], rounds)
    lines = tuple(
        (name, f"{median(seconds[name]):.3f}", shown_ratio(ratios(seconds, name, own)), told)
        for name, told in ((own, ""), (attack, f"{median(found):.1f}"))
    )
    notes = (
        f"phantom-clip, 72 pixels a side, all weights shared. Target: {TARGET_PSNR} dB in {TARGET_SECONDS} s.",
        machine(rounds),
    )
    return Table("inversion", ("what", "seconds", "time, ratio", "PSNR, dB"), lines, notes)


def drawn(clip: DualEncoder, steps: int) -> tuple[PIL.Image.Image, str]:
    """A line a picture: as it is, rebuilt in each arm, by long matching from all weights, and the mean picture."""
    room, victims = room_of(clip)
    rows = victims[:SHOWN]
    true = room.pixels(rows).values
    columns: dict[str, Sequence[Any]] = {"shared": list(true)}
    for arm in ARMS:
        columns[_said(arm)] = [room.picture(room.seen(row, arm), room.ridge(arm)) for row in rows]
    columns["matching"] = [_matched(room, row, steps) for row in rows]
    columns["mean"] = [room.mean] * len(rows)
    side = LARGER * true.shape[-1]
    sheet = PIL.Image.new("RGB", ((side + 6) * len(columns), (side + 6) * len(rows) + 16), "white")
    pen = PIL.ImageDraw.Draw(sheet)
    for across, (name, pictures) in enumerate(columns.items()):
        pen.text((across * (side + 6) + 4, 2), name, fill="black")
        for down, picture in enumerate(pictures):
            levels = (255 * np.asarray(picture, np.float64).transpose(1, 2, 0)).round().clip(0, 255).astype(np.uint8)
            larger = PIL.Image.fromarray(levels).resize((side, side), PIL.Image.Resampling.NEAREST)
            sheet.paste(larger, (across * (side + 6), 16 + down * (side + 6)))
    said = ", ".join(
        f"{name} {np.mean([psnr(np.asarray(a, float), b.double().numpy()) for a, b in zip(of, true, strict=True)]):.1f}"
        for name, of in columns.items()
    )
    return sheet, f"mean PSNR of {len(rows)} pictures: {said}"


def _said(arm: Arm) -> str:
    return arm.name.replace("_", " ")


def _matched(room: Room, row: Example, steps: int) -> torch.Tensor:
    pixels, parameters = room.pixels([row]), room.client.twin.parameters
    given = torch.autograd.grad(room.client.loss([row], pixels), parameters, allow_unused=True)
    start = replace(pixels, values=room.mean.expand_as(pixels.values))
    return matched(partial(room.client.loss, [row]), parameters, given, start, steps=steps)[0]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", action="store_true")
    parser.add_argument("--steps", type=int, default=LONG, help="of matching, in the picture")
    told = parser.parse_args()
    torch.set_num_threads(1)
    clip = load_dual(phantom_clip(), name="phantom-clip")
    if told.picture:
        sheet, said = drawn(clip, told.steps)
        sheet.save(PICTURE)
        print(said)
        return
    table = timed(clip, told.rounds)
    print(f"{SUITE.name}\n{table.markdown}")
    if told.write:
        write_tables(PAGE, [table])


if __name__ == "__main__":
    main()
