"""The table of points of mends: rates and paired changes by hand, moves on a model that really runs."""

from __future__ import annotations

from tools.mend_points import line, told_moves

from vlmend.audit.suite import Answer
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import corrupt_image
from vlmend.methods.safety.cmrm import CMRM
from vlmend.models.vlm import VLM


def answers(group: str, labels: str) -> list[Answer]:
    """c: an answer, r: it declines, ?: unscored."""
    words = {"c": "compliance", "r": "refusal", "?": "unscored"}
    return [
        Answer(f"{group} {k}", "original", group, "", words[label], "", "", "", "stop")
        for k, label in enumerate(labels)
    ]


def outcome(harmful: str, lookalike: str, ordinary: str) -> dict[str, list[Answer]]:
    told = {"harmful": harmful, "lookalike": lookalike, "ordinary": ordinary}
    return {group: answers(group, labels) for group, labels in told.items()}


def test_a_row_worked_out_by_hand() -> None:
    """Harmful: two of four answered, two fixed, p = 2 / 4. Look-alikes: one of three scored declined, one broken."""
    row = line("m", outcome("rrcc", "crc?", "cc"), outcome("cccc", "cccc", "cc"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cell.split(" ")[0] for cell in cells[:4]] == ["m", "50%", "33%", "0%"]
    assert cells[4:] == ["2, 0; 0.5", "0, 1; 1"]


def test_under_unit_gain_the_moves_are_one_and_their_spread_is_told(tiny: VLM) -> None:
    data = Dataset("a", tuple(Example(str(k), f"request number {k}", "harmful") for k in range(8)))
    asked = [Conversation.ask(row.prompt, corrupt_image("white", tiny.image_side, 0)) for row in data.examples]
    told = told_moves(tiny, data, asked)
    mend = CMRM(mode="unit_gain").fit(tiny, data, seed=0)
    cells = [cell.strip() for cell in told("m", [mend]).strip("|").split("|")]
    assert cells[0] == "m"
    assert all(abs(float(cell.split(" ± ")[0]) - 1) <= 0.01 for cell in cells[1:])
    assert told("none", []).count("0.00 ± 0.00") == 5
