"""words: the words that a mend puts before requests, as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractExporter
from vlmend.core.edits import RewritePrompt
from vlmend.core.targets import ChatTarget
from vlmend.errors import UsageError

__all__ = ["EXPORTER", "Words"]


class Words(AbstractExporter):
    """Takes along words and nothing else."""

    name: ClassVar[str] = "words"
    about: ClassVar[str] = "words of prompt mends as JSON"

    def refusals(self, target: ChatTarget, options: Mapping[str, Any]) -> list[str]:
        kinds = {type(edit).__name__ for mend in target.mends for edit in mend.edits} - {"RewritePrompt"}
        return [f"{kind} is no words. Keep vlmend where you serve." for kind in sorted(kinds)]

    def write(self, target: ChatTarget, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        reasons = self.refusals(target, options)
        if reasons:
            raise UsageError(f"{target.id} is more than words: {' '.join(reasons)}", "Take a mend of words.")
        edits = [edit for mend in target.mends for edit in mend.edits if isinstance(edit, RewritePrompt)]
        out.mkdir(parents=True)
        (out / "words.json").write_text(json.dumps([edit.before for edit in edits]))
        return {"words": len(edits)}


EXPORTER = Words()
