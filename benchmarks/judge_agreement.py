"""How well the two local judges agree with hand labels on the phantom's replies.

    python benchmarks/judge_agreement.py RUN...

`judge_labels.jsonl` holds labels given by reading request and reply, blind to the judge's verdict and to
the run, keyed by the SHA-256 of "request\nreply": the texts themselves stay in the run folders. Replies
without a label are left out; the labels are of the demo of phantom's second generation (docs/suites/judge.md).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

from vlmend.audit.judges.refusal import RefusalJudge
from vlmend.audit.judges.rules import RuleJudge
from vlmend.core.metrics.stats import agreement
from vlmend.core.verdicts import Exchange


def main(runs: list[Path]) -> None:
    """Print agreement, kappa and the confusion counts."""
    lines = Path(__file__).with_name("judge_labels.jsonl").read_text().splitlines()
    labels = {row["sha256"]: row["label"] for row in map(json.loads, lines)}
    samples = [json.loads(line) for run in runs for line in (run / "samples.jsonl").read_text().splitlines()]
    texts = {f"{s['prompt']}\n{s['reply']}": s for s in samples}
    by_digest = {hashlib.sha256(text.encode()).hexdigest(): sample for text, sample in texts.items()}
    shared = [digest for digest in labels if digest in by_digest]
    hand = [labels[digest] for digest in shared]
    exchanges = [Exchange(by_digest[d]["prompt"], by_digest[d]["reply"]) for d in shared]
    print(f"{len(shared)} of {len(labels)} labelled replies are in these runs")
    for judge in (RefusalJudge(), RuleJudge()):
        ours = [verdict.label for verdict in judge.judge(exchanges)]
        share, kappa = agreement(ours, hand)
        print(f"{judge.id}: agreement {share:.3f}, Cohen's kappa {kappa:.3f}")
        for (judged, labelled), count in sorted(Counter(zip(ours, hand, strict=True)).items()):
            print(f"  judge {judged:>10}, hand {labelled:>10}: {count}")


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]])
