"""Run where vLLM and the plug-in are installed: the greedy tokens of every probe, under every mend, in one batch.

    python vllm_tokens.py MODEL OUT.json FOLDER... [--whole] [--blocks N] [--tokens N]

Each request of the batch asks for its own mend or for the base; what differs from the folders is counted. With few
blocks of the cache requests are thrown out and read again, with few tokens a step prompts are read in parts.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--tokens", type=int)
    given = parser.parse_args()
    os.environ["VLMEND_VLLM"] = os.pathsep.join(map(str, given.folders))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import vllm
    from vlmend_vllm.engine import steering_of

    chunks: dict[str, Any] = {"enable_chunked_prefill": False} if given.whole else {}
    if given.tokens:
        chunks["max_num_batched_tokens"] = given.tokens
    if given.blocks:
        chunks["num_gpu_blocks_override"] = given.blocks
    engine = vllm.LLM(
        given.model, dtype="float32", enforce_eager=True, enable_prefix_caching=False, block_size=32,
        max_model_len=256, logits_processors=["vlmend_vllm:Fired"], disable_log_stats=False, **chunks,
    )  # fmt: skip
    runner = engine.llm_engine.model_executor.driver_worker.worker.model_runner
    steering = steering_of(runner)
    asked = [(name, probe, probe.mended) for name, mend in steering.mends.items() for probe in mend.probes]
    asked += [("base", probe, probe.base) for probe in next(iter(steering.mends.values())).probes]
    plans = [
        vllm.SamplingParams(temperature=0, max_tokens=len(want), min_tokens=len(want), extra_args={"vlmend": name})
        for name, _, want in asked
    ]
    outs = engine.generate([{"prompt_token_ids": probe.prompt} for _, probe, _ in asked], plans, use_tqdm=False)
    rows = [
        {"mend": name, "same": list(out.outputs[0].token_ids) == want, "moved": probe.mended != probe.base,
         "prompt": len(probe.prompt)}
        for (name, probe, want), out in zip(asked, outs, strict=True)
    ]  # fmt: skip
    default = engine.generate({"prompt_token_ids": asked[0][1].prompt}, plans[0].clone(), use_tqdm=False)
    try:
        wrong = vllm.SamplingParams(extra_args={"vlmend": "nobody"})
        engine.generate({"prompt_token_ids": [5, 6]}, wrong, use_tqdm=False)
        unknown = "answered"
    except Exception as problem:
        unknown = str(problem)
    metrics = {one.name: getattr(one, "value", None) for one in engine.get_metrics()}
    told = {
        "vllm": vllm.__version__, "rows": rows, "unknown": unknown,
        "default": list(default[0].outputs[0].token_ids) == asked[0][2],
        "fired": {f"{name} {layer}": count for (name, layer), count in steering.fired.items()},
        "preempted": metrics.get("vllm:num_preemptions"),
        "bypassed": bypassed(engine, vllm, runner.get_model().model.layers[max(steering.layers)], asked[0][1].prompt),
    }  # fmt: skip
    given.out.write_text(json.dumps(told, indent=1))


def bypassed(engine: Any, vllm: Any, block: Any, prompt: list[int]) -> str:
    """What the engine says once a block's `forward` is called without its hooks, as some families do."""
    block.__class__ = type("Bypass", (type(block),), {"__call__": lambda self, *a, **k: self.forward(*a, **k)})
    try:
        engine.generate({"prompt_token_ids": prompt}, vllm.SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return "answered"


main()
