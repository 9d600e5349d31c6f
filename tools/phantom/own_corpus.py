"""What a model says where it gives in, as a corpus for the attack visual_jailbreak.

    python -m tools.phantom.own_corpus phantom corpus.jsonl

The requests are the harmful ones of the calibration set, each beside a built-in picture; kept are the beginnings of
those replies that harmful-2 calls harmful, with their requests. Held-out requests are not asked, and no text of harm is
written by hand: it is the model's own.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from vlmend.attacks.requests import replies_to
from vlmend.audit.judging import made_judges
from vlmend.audit.suite import builtin_picture
from vlmend.core.verdicts import UNSAFE, Exchange
from vlmend.data.sources import builtin_dataset
from vlmend.models.loading.vlm import load
from vlmend.registry import model_folder

TOKENS = 16


def main(model: str, out: Path) -> None:
    """Ask, judge, keep."""
    vlm = load(model_folder(model), name=model)
    rows = [
        replace(row, image=builtin_picture(k)[1])
        for k, row in enumerate(builtin_dataset(("harmful",), "anchor").examples)
    ]
    said = replies_to(vlm, [row.conversation for row in rows], TOKENS)
    verdicts = made_judges(["harmful"])[0].judge(
        [Exchange(row.prompt, reply) for row, reply in zip(rows, said, strict=True)]
    )
    kept = [
        {"prompt": row.prompt, "reply": reply}
        for row, reply, verdict in zip(rows, said, verdicts, strict=True)
        if verdict.label in UNSAFE
    ]
    out.write_text("".join(json.dumps(one) + "\n" for one in kept))
    print(f"{len(kept)} of {len(rows)} replies kept in {out}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
