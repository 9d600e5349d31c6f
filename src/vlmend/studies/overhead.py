"""What a mend costs in time, measured side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

import torch

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.models.vlm import VLM

__all__ = ["answer_times", "interleaved", "phase_times"]


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; one warm-up, then all calls in turn, `rounds` times."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: median(found) for name, found in seconds.items()}


def answer_times(
    target: VLM, views: Mapping[str, Sequence[Mend]], batch: Sequence[Conversation], tokens: int, rounds: int
) -> dict[str, float]:
    """Seconds a request to answer a batch that is new to the model, everything included, for each setting."""

    def answering(mends: Sequence[Mend]) -> Callable[[], object]:
        view = replace(target, mends=tuple(mends))
        return lambda: view.forgetful().generate(batch, Sampling(tokens))

    found = interleaved({name: answering(mends) for name, mends in views.items()}, rounds)
    return {name: seconds / len(batch) for name, seconds in found.items()}


def phase_times(
    target: VLM, views: Mapping[str, Sequence[Mend]], batch: Sequence[Conversation], tokens: int, rounds: int
) -> dict[str, dict[str, float | None]]:
    """Seconds a request for the prefill, and seconds a token for decoding, of each setting.

    Decoding is the difference of two replies of 1 and `tokens` tokens, with the end token held back
    so that all settings decode equally long. `naive` is sample-level CMRM's extra work done plainly:
    two more full reads in front of the unmended prefill.
    """
    calls: dict[str, Callable[[], object]] = {}
    for name, mends in views.items():
        view = replace(target, mends=tuple(mends))
        calls[f"{name}:prefill"] = lambda view=view: view.forgetful().decode(batch, Sampling(1))
        calls[f"{name}:reply"] = lambda view=view: view.forgetful().decode(batch, Sampling(tokens, least=tokens))
    sites = [Site("language", layer) for layer in range(target.layers)]

    def naive() -> None:
        with torch.inference_mode():
            target.reader.states([c.without_images() for c in batch], sites)
            target.reader.states(batch, sites)
        target.forgetful().decode(batch, Sampling(1))

    calls["naive:prefill"] = naive
    found = interleaved(calls, rounds)
    phases: dict[str, dict[str, float | None]] = {
        name: {
            "prefill": found[f"{name}:prefill"] / len(batch),
            "decode": (found[f"{name}:reply"] - found[f"{name}:prefill"]) / (tokens - 1) / len(batch),
        }
        for name in views
    }
    return phases | {"naive": {"prefill": found["naive:prefill"] / len(batch), "decode": None}}
