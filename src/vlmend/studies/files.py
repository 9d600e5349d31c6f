"""Files of studies: written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmend.core.jsontext import to_json
from vlmend.errors import RunProblem

__all__ = ["write_json"]


def write_json(file: Path, content: Any) -> None:
    """Write JSON values, null for NaN.

    Raises:
        RunProblem: It cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".new").write_text(to_json(content, indent=1) + "\n")
        file.with_suffix(".new").replace(file)
    except OSError as problem:
        raise RunProblem(
            f"{file} cannot be written ({problem.strerror}).",
            "Make room and run the same command again: finished replies are kept.",
        ) from problem
