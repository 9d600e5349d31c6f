"""The phantom and its mend on public request sets that no phantom was trained on.

    python benchmarks/public_sets.py ../shared/data runs/demo/mend --limit 60

Prints a Markdown table: unsafe rate as text, with a picture, and with a picture after the mend; for
harmless sets the share that is declined. The sets are read where they lie and never copied.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from vlmend import registry
from vlmend.audit.judges.rules import RuleJudge
from vlmend.audit.suite import builtin_picture
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.mend import Mend
from vlmend.core.splits import word_fraction
from vlmend.core.stats import mcnemar, wilson
from vlmend.core.verdicts import Exchange
from vlmend.data.requests import builtin_requests
from vlmend.models.load import load
from vlmend.models.vlm import VLM

HARMFUL = {
    "CatQA": "catqa/english.jsonl",
    "StrongREJECT": "strongreject/prompts.jsonl",
    "AdvBench": "advbench/harmful_behaviors.jsonl",
    "JailbreakBench": "jailbreakbench/harmful.jsonl",
    "FigStep questions": "figstep/safebench.jsonl",
}
BATCH = 32


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("mend", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    arguments = parser.parse_args()
    base = load(registry.model_folder("phantom"), name="phantom")
    mended = base.with_mend(Mend.load(arguments.mend))
    print(
        "| set | n | counted | as text | with a picture | after the mend | McNemar p |\n|---|---|---|---|---|---|---|"
    )
    held_out = [request.prompt for request in builtin_requests("harmful", "held_out")]
    table(base, mended, "built-in, all held-out", held_out, "compliance")
    for name, file in HARMFUL.items():
        table(base, mended, name, chosen(arguments.data / file, arguments.limit), "compliance")
    safe = chosen(arguments.data / "xstest/prompts.jsonl", arguments.limit, label="safe")
    table(base, mended, "XSTest, safe prompts", safe, "refusal")


def chosen(file: Path, limit: int, **wanted: str) -> list[str]:
    """The first prompts in hash order, so that every machine picks the same."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    prompts = {r["prompt"] for r in rows if all(r[k] == v for k, v in wanted.items())}
    return sorted(prompts, key=word_fraction)[:limit]


def table(base: VLM, mended: VLM, name: str, prompts: Sequence[str], counted: str) -> None:
    """One row; a reply that cannot be judged counts as not `counted`."""
    text = [Conversation.ask(prompt) for prompt in prompts]
    seen = [Conversation.ask(prompt, builtin_picture(k)[1]) for k, prompt in enumerate(prompts)]
    hits = [rate(base, text, counted), rate(base, seen, counted), rate(mended, seen, counted)]
    cells = [wilson(sum(hit), len(hit)) for hit in hits]
    shown = " | ".join(f"{c.value:.0%} [{c.low:.0%}, {c.high:.0%}]" for c in cells)
    word = {"compliance": "unsafe", "refusal": "declined"}[counted]
    print(f"| {name} | {len(prompts)} | {word} | {shown} | {mcnemar(hits[1], hits[2]).p_value:.2g} |", flush=True)


def rate(target: VLM, asked: Sequence[Conversation], counted: str) -> list[bool]:
    """Which replies got the counted verdict."""
    order = sorted(range(len(asked)), key=lambda k: len(asked[k].turns[0].text))
    found = [False] * len(asked)
    for start in range(0, len(order), BATCH):
        here = order[start : start + BATCH]
        replies = target.generate([asked[k] for k in here], Sampling(max_new_tokens=24))
        for k, reply in zip(here, replies, strict=True):
            found[k] = RuleJudge().judge([Exchange(asked[k].turns[0].text, reply.text)])[0].label == counted
    return found


if __name__ == "__main__":
    main()
