"""Does this engine say what the mend says? `python -m vlmend_vllm MODEL FOLDER [--dtype float32]`

Starts vLLM here, gives it the probes of the folder as tokens, with and without the mend, and compares the greedy tokens
with those that vlmend got in float32. Exit code 1 where a mended reply differs though that of the base does not.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .engine import ASKED, FIRED, steering_of
from .mends import BASE, PLACES, Probe, read

__all__ = ["main"]


def main() -> int:
    """Compare, print, and say how it went."""
    parser = argparse.ArgumentParser(prog="vlmend_vllm", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="auto")
    asked = parser.parse_args()
    os.environ |= {PLACES: str(asked.folder), "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    mend = read(asked.folder)
    engine, settings = _engine(asked.model, asked.dtype, mend.whole)
    prompts = [{"prompt_token_ids": probe.prompt} for probe in mend.probes]
    found: dict[str, list[list[int]]] = {}
    for name in (BASE, mend.name):
        plans = [settings(name, len(probe.base)) for probe in mend.probes]
        found[name] = [list(out.outputs[0].token_ids) for out in engine.generate(prompts, plans, use_tqdm=False)]
    return _compared(mend.name, mend.probes, found, _fired(engine))


def _engine(model: str, dtype: str, whole: bool) -> tuple[Any, Any]:
    """An engine under the mend, and what makes the settings of a request."""
    vllm: Any = importlib.import_module("vllm")
    chunks = {"enable_chunked_prefill": False} if whole else {}
    engine = vllm.LLM(
        model, dtype=dtype, enforce_eager=True, enable_prefix_caching=False, logits_processors=[FIRED], **chunks
    )  # fmt: skip

    def settings(name: str, count: int) -> Any:
        return vllm.SamplingParams(temperature=0, max_tokens=count, min_tokens=count, extra_args={ASKED: name})

    return engine, settings


def _fired(engine: Any) -> dict[str, int]:
    """Positions that were edited, by block."""
    steering = steering_of(engine.llm_engine.model_executor.driver_worker.worker.model_runner)
    return {} if steering is None else {f"{name} in block {layer}": n for (name, layer), n in steering.fired.items()}


def _compared(name: str, probes: Sequence[Probe], found: dict[str, list[list[int]]], fired: dict[str, int]) -> int:
    bad = 0
    for k, probe in enumerate(probes):
        base, mended = found[BASE][k] == probe.base, found[name][k] == probe.mended
        moved = "the two differ" if probe.base != probe.mended else "the two are the same"
        print(f"probe {k}: base {_same(base)}, mended {_same(mended)} ({len(probe.base)} tokens each, {moved})")
        bad += base and not mended
    print(f"edited: {fired or 'nothing'}")
    if bad:
        print("The mend does not act here as in vlmend: do not serve it.")
    return int(bool(bad))


def _same(equal: bool) -> str:
    return "as in vlmend" if equal else "NOT as in vlmend"


if __name__ == "__main__":
    sys.exit(main())
