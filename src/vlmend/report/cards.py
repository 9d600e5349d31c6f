"""What the card of an exported model tells of two runs: each measure before and after, and the hub's own records."""

from __future__ import annotations

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from vlmend.core.measures import Measure
from vlmend.errors import UsageError
from vlmend.export.checkpoint.proofs import Proof
from vlmend.report.compare import Run, comparison
from vlmend.report.pages import difference

__all__ = ["proof_of"]


def proof_of(before: Run, after: Run, hub: str | None) -> Proof:
    """What two runs of a model, as it is and mended, prove of the mend.

    Args:
        before: Of the model as it is.
        after: Of the mended one, with hooks or as a checkpoint, on the same samples.
        hub: The id of the data on the Hugging Face hub; None where they have none, and then there are no records.

    Raises:
        UsageError: The first run has mends, or no measure of the two can be compared.
    """
    if before.card.mends:
        raise UsageError(f"{before.name} is a run of a mended model.", "Pass the run of the model as it is first.")
    tests = comparison(before, after)
    if not tests:
        raise UsageError(
            f"{before.name} and {after.name} have no measure in common that can be compared.",
            "Audit both with the same suites and data.",
        )
    lines = ["| measure | before | after | difference | p, Holm | n |", "|---|---|---|---|---|---|"]
    for test in tests:
        values = (test.before.said(), test.after.said(), difference(test), f"{test.holm:.2g}", str(test.n))
        told = (_named(test.before), *values)
        lines.append(f"| {' | '.join(told)} |")
    said = before.card.provenance["plan"]
    data = said["data"] or "the built-in data"
    judges = ", ".join(dict.fromkeys(row.judge for row in after.card.rows if row.judge))
    some = f", at most {said['limit']} of each kind" if said["limit"] else ""
    about = (
        f"vlmend {after.card.versions['vlmend']}, suites {', '.join(said['suites'])}, {data}{some}, "
        f"judged by {judges}, seed {after.card.seed}"
    )
    about += ". Brackets: 95 % intervals; p of paired tests over the same samples, one family."
    return Proof(
        card="\n".join([about, "", *lines]),
        records=_records(before, after, hub) if hub else "",
        base=before.card.provenance["model_digest"],
        model=after.card.provenance["model_digest"],
        mends=tuple(after.card.provenance["mends"]),
    )


def _named(row: Measure) -> str:
    return f"{row.suite}: {row.name}" + (f" ({row.group})" if row.group else "")


def _records(before: Run, after: Run, hub: str) -> str:
    """The hub's `.eval_results` of each compared measure of the second run."""
    entries = [
        EvalResultEntry(
            dataset_id=hub,
            task_id=f"{test.after.suite}/{test.after.name}" + (f"/{test.after.group}" if test.after.group else ""),
            value=round(test.after.value, 4),
            notes=f"vlmend {after.card.versions['vlmend']}, n = {test.after.n}, 95 % [{test.after.low:.4f}, "
            f"{test.after.high:.4f}]; before the mend {test.before.value:.4f}",
        )
        for test in comparison(before, after)
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries))
