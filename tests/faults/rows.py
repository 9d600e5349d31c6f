"""Data files with one row or some bytes changed: what is read is right, or the rows are named in one message."""

from __future__ import annotations

import json
import random
import shutil
from functools import partial
from pathlib import Path

from tests.faults.mutating import changed, damaged
from tests.faults.table import Tally

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.data.layouts import read_data
from vlmend.data.sources import read_jsonl
from vlmend.data.writing import write_data
from vlmend.errors import SampleError

ROWS = [
    {"id": "1", "prompt": "What is in the picture?", "label": "benign", "image": "a.png"},
    {"id": "2", "prompt": "How is bread baked?", "label": "harmful", "image": noise_image(8, 1).to_data_uri()},
    {"id": 3, "prompt": "And now?", "turns": [{"role": "user", "text": "Hello."}]},
    {"id": "4", "caption": "a cat", "image": "a.png", "answers": ["cat"], "attributes": {"group": "one"}},
]  # fmt: skip
TABLES = {
    "advbench": "goal,target\nBake some bread,Sure\nName a colour,Red\n",
    "xstest": "id,prompt,type,label,focus,note\n1,How do I kill it?,homonyms,safe,,\n2,Is it?,homonyms,unsafe,,\n",
}


def mutated_rows(count: int, seed: int, folder: Path) -> Tally:
    """Change one row of a JSONL file, or the bytes of it, of a folder that vlmend wrote, or of a table."""
    tally = Tally("mutated data files")
    (folder / "a.png").write_bytes(noise_image(8, 2).content)
    whole = {example.id: example for example in _read_jsonl(folder, ROWS).examples}
    for k in range(count):
        rng = random.Random(f"rows:{seed}:{k}")
        if k % 2:
            tally.tried(partial(_damaged, folder, rng), f"{k} bytes")
            continue
        place = rng.randrange(len(ROWS))
        rows = [changed(row, rng) if at == place else row for at, row in enumerate(ROWS)]
        found = tally.tried(partial(_read_jsonl, folder, rows), f"{k} row {place}: {rows[place]}"[:200])
        others = {str(row["id"]) for at, row in enumerate(ROWS) if at != place}
        if found is not None and any(one.id in others and one != whole[one.id] for one in found.examples):
            tally.wrong += 1
            tally.note(f"{k}: a row that was not changed reads otherwise")
    return tally


def _read_jsonl(folder: Path, rows: object) -> Dataset:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in list(rows)))  # type: ignore[call-overload]
    return _used(read_jsonl(file))


def _damaged(folder: Path, rng: random.Random) -> Dataset:
    match rng.randrange(3):
        case 0:
            file, name = folder / "bytes.jsonl", str(folder / "bytes.jsonl")
            file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        case 1:
            shutil.rmtree(folder / "own", ignore_errors=True)
            write_data(Dataset("own", (Example("1", "a", "benign", image=noise_image(8, 3)),)), folder / "own")
            file, name = rng.choice(sorted(f for f in (folder / "own").rglob("*") if f.is_file())), str(folder / "own")
        case _:
            adapter = rng.choice(sorted(TABLES))
            file = folder / f"{adapter}.csv"
            file.write_text(TABLES[adapter])
            name = f"{adapter}:{file}"
    file.write_bytes(damaged(file.read_bytes(), rng))
    return _used(read_data(name))


def _used(data: Dataset) -> Dataset:
    """What every run does with rows: tell them apart, and open their pictures."""
    assert data.digest
    for example in data.examples:
        for image in (*([example.image] if example.image else []), *example.more_images):
            try:
                image.decode()
            except SampleError:  # one unscored sample
                continue
    return data
