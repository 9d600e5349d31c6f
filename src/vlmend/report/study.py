"""One self-contained page about a study or a comparison of defences, from their JSON files alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from vlmend.core.files import plain_name, read_json, write_file
from vlmend.errors import UsageError
from vlmend.report import charts, figures
from vlmend.report.pages import write_page
from vlmend.report.tradeoff import apart, tradeoff

__all__ = ["curves_sentence", "write_curves", "write_defences", "write_remedies", "write_study", "write_transfer"]

LEVELS = ("dataset", "sample")


def write_study(folder: Path, out: Path) -> None:
    """Write the page of a study from `study.json` and `parts/*.json`; parts that are not there are left out.

    Raises:
        UsageError: The folder holds no study.
        RunProblem: The page cannot be written.
    """
    about = read_json(folder / "study.json")
    if about is None:
        raise UsageError(f"{folder} holds no study.", "Run `vlmend study cmrm --out` there first.")
    held = {file.stem: read_json(file) for file in sorted((folder / "parts").glob("*.json"))}
    parts = {name: _with_nan(content) for name, content in held.items() if content is not None}
    drawn = {
        "sweep": charts.sweep(parts["sweep"]["rows"], LEVELS) if "sweep" in parts else None,
        "layers": charts.layers(parts["layers"]) if "layers" in parts else None,
        "sizes": charts.sizes(parts["transfer"]["sizes"]) if "transfer" in parts else None,
        "states": figures.states({"layers": parts["states"]["points"]}) if "states" in parts else None,
        "depth": charts.depth(parts["states"]["rows"]) if "states" in parts else None,
        "price": charts.front(parts["price"]["rows"]) if "price" in parts else None,
        "front": charts.front(parts["defences"]["rows"]) if "defences" in parts else None,
    }
    write_page("study.html.jinja", {"about": about, "parts": parts, "drawn": drawn}, out)


def write_defences(content: dict[str, Any], out: Path) -> None:
    """Write the page of a comparison from what `defences.json` holds.

    Raises:
        RunProblem: The page cannot be written.
    """
    write_page("defences.html.jinja", {"defences": content, "drawn": {"front": charts.front(content["rows"])}}, out)


def write_curves(content: dict[str, Any], out: Path) -> None:
    """Write the page of curves from what `curves.json` holds.

    Raises:
        RunProblem: The page cannot be written.
    """
    drawn = tradeoff(content["carriers"])
    write_page("curves.html.jinja", {"content": content, "sentence": curves_sentence(content), "drawn": drawn}, out)


def curves_sentence(content: dict[str, Any]) -> str:
    """What the curves come to, in one sentence: who leaves the control's curve, under how many carriers."""
    carriers = content["carriers"]
    if not any(curve["gap"] for one in carriers for curve in one["curves"]):
        return "No mend can be held against a control: compare random_vector beside them."
    names = dict.fromkeys(c["name"] for one in carriers for c in one["curves"] if not c["control"])
    where = {
        name: [one["carrier"] for one in carriers for c in one["curves"] if c["name"] == name and apart(c)]
        for name in names
    }
    told = [f"{name} ({', '.join(under)})" for name, under in where.items() if under]
    if not told:
        return f"None of {len(names)} mends gives fewer unsafe replies than a random push at the same over-refusal."
    return f"{len(told)} of {len(names)} mends lie below a random push of the same size: {', '.join(told)}."


def write_remedies(content: dict[str, Any], out: Path, about: Mapping[str, str]) -> None:
    """Write the page of remedies beside each other, each with its paired tests against the model as it is.

    Args:
        content: `count` of the remedies; `measures` by name with heading and chance; `bases` and `remedies`, each a
            name and cells (`Measure`) by measure, of remedies with `tests` (`Paired`) and the cells of a `twin`;
            `figure` as series of measures whose groups are the remedies; `published` rows.
        out: The page.
        about: What the page says of itself: `title`, `made_by`, `heading`, `note`, and `published` where rows are.

    Raises:
        RunProblem: The page cannot be written.
    """
    write_page(
        "remedies.html.jinja", {"study": content, "about": about, "drawn": charts.intervals(content["figure"])}, out
    )


def write_transfer(content: dict[str, Any], out: Path) -> None:
    """Write the page of a transfer study from what `transfer.json` holds, and beside it each matrix as a picture.

    Raises:
        RunProblem: They cannot be written.
    """
    told = _with_nan(content)
    matrices = {attack: _matrix(told, attack) for attack in told["attacks"]}
    drawn = {
        attack: charts.heat(
            *matrix,
            f"share {told['right'][attack].lower()} under {attack}, by the model that it was made on and who is asked",
        )
        for attack, matrix in matrices.items()
    }
    for attack, matrix in matrices.items():
        buffer = io.BytesIO()
        charts.heat_figure(*matrix).savefig(buffer, format="png", dpi=150)
        write_file(out.with_name(f"{out.stem}-{plain_name(attack)}.png"), buffer.getvalue())
    write_page("transfer.html.jinja", {"study": told, "drawn": drawn}, out)


def _matrix(told: dict[str, Any], attack: str) -> tuple[list[tuple[str, list[float]]], list[str]]:
    """Who is right: clean, at random, and under the attack made on each model; then the models asked."""
    cells = [cell for cell in told["cells"] if cell["attack"] == attack]
    targets = [name for name in told["models"] if any(cell["target"] == name for cell in cells)]
    sources = [name for name in told["models"] if any(cell["source"] == name for cell in cells)]

    def line(what: str, source: str) -> list[float]:
        found = {cell["target"]: cell[what]["value"] for cell in cells if source in ("", cell["source"])}
        return [found.get(target, math.nan) for target in targets]

    lines = [("as they were", line("clean", "")), ("at random", line("noise", ""))]
    return [*lines, *((f"made on {source}", line("attacked", source)) for source in sources)], targets


def _with_nan(held: Any) -> Any:
    """The same with NaN, which charts and templates want where nothing was scored."""
    if isinstance(held, list):
        return [_with_nan(one) for one in cast("list[Any]", held)]
    if not isinstance(held, dict):
        return held
    numbers, values = ("value", "low", "high"), cast("dict[str, Any]", held)
    return {key: math.nan if one is None and key in numbers else _with_nan(one) for key, one in values.items()}
