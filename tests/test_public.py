"""The public face: `import vlmend` and the ten lines of the Python page."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import vlmend
from vlmend.core.measures import Scorecard
from vlmend.errors import BadParameter, UnknownName, UsageError

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "numpy", "pydantic", "matplotlib", "inspect_ai", "sklearn", "scipy")


def loaded(code: str) -> list[str]:
    """Heavy libraries that a fresh Python has loaded after some lines."""
    told = f"{code}\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()


def test_importing_vlmend_loads_no_library() -> None:
    assert loaded("import vlmend") == []
    assert loaded("import vlmend; vlmend.Scorecard, vlmend.LoadOptions, vlmend.__version__") == []


def test_every_public_name_is_there_and_nothing_else() -> None:
    assert vlmend.__all__ == sorted(vlmend.__all__)
    assert dir(vlmend) == vlmend.__all__
    assert all(getattr(vlmend, name) is not None for name in vlmend.__all__)
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        vlmend.audits  # type: ignore[attr-defined] # noqa: B018


def test_what_checkers_see_is_what_python_gives() -> None:
    tree = ast.parse(Path(str(vlmend.__file__)).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {name.name for node in checked.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert seen | {"__version__"} == set(vlmend.__all__)


def test_audit_is_the_package_and_the_function() -> None:
    import vlmend.audit.plan

    package: object = sys.modules["vlmend.audit"]
    assert isinstance(package, ModuleType)
    assert vlmend.audit is package
    assert package.plan is vlmend.audit.plan  # type: ignore[attr-defined]
    with pytest.raises(UnknownName, match="frob"):
        vlmend.audit("phantom-clip", judges=["frob"])


def test_parameters_belong_to_names() -> None:
    from vlmend.registry import make_method

    with pytest.raises(BadParameter, match="no parameter beta"):
        vlmend.fit("cmrm", "nowhere", beta=1)
    with pytest.raises(UsageError, match="made already"):
        vlmend.fit(make_method("cmrm", {}), "nowhere", alpha=1)


def test_a_data_set_takes_no_mends(tmp_path: Path) -> None:
    from vlmend.core.mend import Mend, MendCard

    mend = Mend((), MendCard("none", {}, "m", "d", "data", "digest", 0, {}, {}, ""))
    data = vlmend.Dataset("mine", (vlmend.Example("a", caption="a cat"),))
    with pytest.raises(UsageError, match="takes no mends"):
        vlmend.audit(data, out=tmp_path, mends=[mend])


def test_the_python_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "python.md").read_text(), re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 10
    monkeypatch.chdir(tmp_path)
    held: dict[str, object] = {}
    exec(code, held)
    before, after = (Scorecard.load(tmp_path / "runs" / name / "scorecard.json") for name in ("before", "after"))
    skew, mended = (
        next(row.value for row in card if (row.name, row.group) == ("bias_at_10", "directed"))
        for card in (before, after)
    )
    assert abs(mended) < 0.25 < skew  # the planted titles find people of their gender first; 0 is none
