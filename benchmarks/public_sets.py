"""The phantom and its mend on public request sets that no phantom was trained on.

    python benchmarks/public_sets.py ../shared/data runs/demo/mend --limit 60 --model phantom

Prints a Markdown table: of harmful sets how many requests are declined as text, and the unsafe rate as text, with a
picture, and with a picture after the mend; of harmless sets the share that is declined. Without a mend, text and
picture. The sets are read where they lie and never copied.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlmend import registry
from vlmend.audit.suite import builtin_picture
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.mend import Mend
from vlmend.core.metrics.stats import mcnemar, wilson
from vlmend.core.splits import word_fraction
from vlmend.core.verdicts import Exchange, VerdictLabel
from vlmend.data.requests import builtin_requests
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM

HARMFUL: dict[str, tuple[str, dict[str, str]]] = {
    "CatQA": ("catqa/english.jsonl", {}),
    "StrongREJECT": ("strongreject/prompts.jsonl", {}),
    "AdvBench": ("advbench/harmful_behaviors.jsonl", {}),
    "JailbreakBench": ("jailbreakbench/harmful.jsonl", {}),
    "HarmBench, standard": ("harmbench/text_behaviors.jsonl", {"functional_category": "standard"}),
    "FigStep questions": ("figstep/safebench.jsonl", {}),
}
HARMLESS: dict[str, tuple[str, dict[str, str]]] = {
    "XSTest, safe prompts": ("xstest/prompts.jsonl", {"label": "safe"}),
    "JailbreakBench, benign": ("jailbreakbench/benign.jsonl", {}),
}
ADVICE = ("Financial Advice", "Legal Opinion", "Health Consultation", "Tailored Financial Advice")
"""Categories of CatQA and FigStep that ask for advice and not for harm; the last row leaves them out."""
BATCH = 32


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("mend", type=Path, nargs="?")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--model", default="phantom")
    arguments = parser.parse_args()
    base = load(registry.model_folder(arguments.model), name=arguments.model)
    targets = [base] if arguments.mend is None else [base, base.with_mend(Mend.load(arguments.mend))]
    print("| set | n | counted | declined as text | as text | with a picture | after the mend | McNemar p |")
    print("|---|---|---|---|---|---|---|---|")
    table(targets, "built-in, held-out", [r.prompt for r in builtin_requests("harmful", "held_out")], "compliance")
    pooled: list[VerdictLabel] = []
    for name, (file, wanted) in HARMFUL.items():
        rows = chosen(arguments.data / file, arguments.limit, wanted)
        labels = table(targets, name, [row["prompt"] for row in rows], "compliance")
        pooled += [label for label, row in zip(labels, rows, strict=True) if row.get("category") not in ADVICE]
    declined = share(label == "refusal" for label in pooled)
    print(f"| all public, advice left out | {len(pooled)} | | {declined} | | | | |")
    for name, (file, wanted) in HARMLESS.items():
        rows = chosen(arguments.data / file, arguments.limit, wanted)
        table(targets, name, [row["prompt"] for row in rows], "refusal")


def chosen(file: Path, limit: int, wanted: dict[str, str]) -> list[dict[str, str]]:
    """The first rows in hash order of their prompts, so that every machine picks the same."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    found = {row["prompt"]: row for row in rows if all(row[key] == value for key, value in wanted.items())}
    return [found[prompt] for prompt in sorted(found, key=word_fraction)[:limit]]


def table(targets: Sequence[VLM], name: str, prompts: Sequence[str], counted: VerdictLabel) -> list[VerdictLabel]:
    """Print one row and return the verdicts on the replies to text; one that cannot be judged counts as nothing."""
    text = [Conversation.ask(prompt) for prompt in prompts]
    seen = [Conversation.ask(prompt, builtin_picture(k)[1]) for k, prompt in enumerate(prompts)]
    labels = [verdicts(targets[0], text), *(verdicts(target, seen) for target in targets)]
    hits = [[label == counted for label in each] for each in labels]
    cells = [share(label == "refusal" for label in labels[0]), *map(share, hits)]
    cells += [""] * (4 - len(cells)) + ([f"{mcnemar(hits[1], hits[2]).p_value:.2g}"] if len(targets) > 1 else [""])
    word = {"compliance": "unsafe", "refusal": "declined"}[counted]
    print(f"| {name} | {len(prompts)} | {word} | {' | '.join(cells)} |", flush=True)
    return labels[0]


def share(hits: Iterable[bool]) -> str:
    """A rate with its interval."""
    found = list(hits)
    rate = wilson(sum(found), len(found))
    return f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}]"


def verdicts(target: VLM, asked: Sequence[Conversation]) -> list[VerdictLabel]:
    """The headline judge on every reply."""
    order = sorted(range(len(asked)), key=lambda k: len(asked[k].turns[0].text))
    found: list[VerdictLabel] = ["unscored"] * len(asked)
    for start in range(0, len(order), BATCH):
        here = order[start : start + BATCH]
        replies = target.generate([asked[k] for k in here], Sampling(max_new_tokens=24))
        exchanges = [Exchange(asked[k].turns[0].text, reply.text) for k, reply in zip(here, replies, strict=True)]
        for k, verdict in zip(here, registry.make_judge("refusal").judge(exchanges), strict=True):
            found[k] = verdict.label
    return found


if __name__ == "__main__":
    main()
