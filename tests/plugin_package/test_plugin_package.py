"""A package of another author is found, made, listed and checked like ours."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Generator
from pathlib import Path

import pytest

from vlmend import registry, testing
from vlmend.audit.plan import suites_of
from vlmend.core.conversation import Conversation
from vlmend.core.edits import RewritePrompt
from vlmend.core.verdicts import Exchange
from vlmend.data.catalogue import adapters
from vlmend.errors import BrokenPlugin, NameClash, UnknownName
from vlmend.listing import listed

HERE = Path(__file__).parent
ENTRIES = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["entry-points"]
NAMES = {group.removeprefix("vlmend."): next(iter(entries)) for group, entries in ENTRIES.items()}
"""One plug-in of each group."""

CHECKS = {
    "methods": testing.check_method, "attacks": testing.check_attack, "steps": testing.check_step,
    "suites": testing.check_suite, "exporters": testing.check_exporter, "data": testing.check_adapter,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """The package and its metadata on the path, as pip would put them there."""
    place = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(HERE / "elsewhere", place / "elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        put(place, "elsewhere", ENTRIES)
        patch.syspath_prepend(str(place))
        adapters.cache_clear()
        yield place
    adapters.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


def put(place: Path, package: str, entries: dict[str, dict[str, str]]) -> None:
    """The metadata of an installed package."""
    info = place / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def test_the_package_has_one_of_every_group() -> None:
    assert set(NAMES) == set(registry.GROUPS)


@pytest.mark.parametrize("group", NAMES)
def test_each_is_listed(group: str) -> None:
    assert NAMES[group] in registry.names(group)
    assert NAMES[group] in [row["name"] for row in listed(group)]


@pytest.mark.parametrize("group", [group for group in NAMES if registry.GROUPS[group].by_axis])
def test_each_with_an_axis_is_listed_under_it_alone(group: str) -> None:
    axis = NAMES[group].partition("/")[0]
    assert NAMES[group] in registry.names(group, axis)
    assert NAMES[group] not in registry.names(group, "fairness")


@pytest.mark.parametrize("group", CHECKS)
def test_each_passes_the_shipped_checks(group: str) -> None:
    CHECKS[group](NAMES[group])  # type: ignore[operator]


@pytest.mark.parametrize("group", ["methods", "attacks", "steps", "suites", "exporters"])
def test_each_is_checked_without_being_registered_too(group: str) -> None:
    CHECKS[group](registry.get(group, NAMES[group]))  # type: ignore[operator]


def test_a_short_name_is_enough_and_parameters_are_read() -> None:
    assert registry.make_method("polite", {"word": "Kindly: "}).parameters == {"word": "Kindly: "}
    assert registry.make_step("captioned", {}).name == "captioned"
    assert registry.make_attack("glare", {}).name == "glare"
    assert registry.suite("addresses").name == "privacy/addresses"


def test_the_judge_reads_replies() -> None:
    """Two words are at most 2, three are more."""
    verdicts = registry.make_judge("brief:2").judge([Exchange("q", "no way"), Exchange("q", "yes you may")])
    assert [verdict.label for verdict in verdicts] == ["refusal", "compliance"]


def test_the_exporter_writes_words(tmp_path: Path) -> None:
    tiny = testing.tiny_vlm()
    view = tiny.with_mend(registry.make_method("polite", {}).fit(tiny, testing.stages.stage_of("chat").rows(), seed=0))
    assert registry.exporter("words").write(view, tmp_path / "out", {}) == {"words": 1}
    assert (tmp_path / "out" / "words.json").read_text() == '["Please: "]'
    assert [edit.before for edit in view.edits if isinstance(edit, RewritePrompt)] == ["Please: "]


def test_the_data_set_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"words": "hello"}\n')
    assert [row.prompt for row in adapters()["elsewhere_rows"].read(tmp_path).examples] == ["hello"]


def test_the_model_and_the_scorer_are_had(installed: Path) -> None:
    assert registry.model_folder("elsewhere-model") == installed / "elsewhere"
    assert registry.get("scorers", "shortest")([Conversation.ask("q")] * 2, ["aa", "b"]) == [2.0, 1.0]


def test_one_name_on_two_axes_is_a_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "another", {"vlmend.methods": {"privacy/polite": "another:METHOD"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NameClash, match=r"called polite: .*(elsewhere|another).* and .*(elsewhere|another)"):
        registry.names("methods")


def test_the_name_of_one_of_ours_is_a_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "another", {"vlmend.suites": {"fairness/over_refusal": "another:SUITE"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NameClash, match="Two suites are called over_refusal"):
        registry.suite("safety/over_refusal")


def test_a_clash_is_told_to_those_who_ask_for_it_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "another", {"vlmend.suites": {"fairness/over_refusal": "another:SUITE"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.suite("utility/instructions").name == "utility/instructions"
    assert "utility/instructions" in suites_of(("utility",))
    for asked in (lambda: registry.names("suites", "fairness"), lambda: registry.suite("fairness/over_refusal")):
        with pytest.raises(NameClash, match="Two suites are called over_refusal"):
            asked()


@pytest.mark.parametrize(
    ("place", "reason"), [("no_such_module:SUITE", "No module named"), ("json:SUITE", "no attribute 'SUITE'")]
)
def test_a_broken_plugin_is_told_with_its_place(
    place: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "another", {"vlmend.suites": {"safety/broken": place}})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "safety/broken" in registry.names("suites")
    for asked in (lambda: registry.suite("broken"), lambda: suites_of(("safety",)), lambda: listed("suites")):
        with pytest.raises(BrokenPlugin, match=f"The suite safety/broken cannot be had from {place} .*{reason}"):
            asked()


def test_a_group_or_axis_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(UnknownName, match=r"no group 'frobs' of plug-ins\. There are: methods, attacks"):
        registry.names("frobs")
    with pytest.raises(UnknownName, match=r"no axis 'nonsense' of suites\. Axes: safety, privacy, fairness"):
        registry.names("suites", "nonsense")
    assert registry.names("judges", "") != []
