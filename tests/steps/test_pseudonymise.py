"""pseudonymise: the same for the same under one key, nothing of what was there is left, captions of things stay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.contracts import DataEdit
from vlmend.core.conversation import Turn
from vlmend.core.examples import Dataset, Example
from vlmend.data.personal import KINDS, Finder, bank_of
from vlmend.data.surrogates import Surrogates
from vlmend.errors import BadParameter, UsageError
from vlmend.steps.privacy.pseudonymise import Pseudonymise
from vlmend.steps.running import apply_step
from vlmend.testing.stages import plain_image

BANK = bank_of(("en_US",))
FINDER = Finder()
CARD = "4111 1111 1111 1111"


def stand_ins(key: bytes = b"k" * 32) -> Surrogates:
    return Surrogates(key, BANK, FINDER.gender, FINDER.is_given)


def made(*prompts: str, step: Pseudonymise | None = None) -> DataEdit:
    rows = tuple(Example(f"r{k}", prompt) for k, prompt in enumerate(prompts))
    return (step or Pseudonymise(key="trial")).apply(Dataset("set", rows), seed=3)


def prompts(edit: DataEdit) -> list[str]:
    return [row.prompt for row in edit.data.examples]


def key_file(folder: Path, content: bytes = b"0123456789abcdef", mode: int = 0o600) -> str:
    file = folder / "pseudonyms.key"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def found(text: str) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in FINDER(text)[0]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Anna-Lena van der Berg met J", [("person", "Anna-Lena van der Berg")]),
        ("It was John Q. Smith.", [("person", "John Q. Smith")]),
        ("Mr. Xqzt Bgrt came, and nobody else.", [("person", "Xqzt Bgrt")]),
        ("JOHN SMITH came. Smith's dog came.", [("person", "JOHN SMITH"), ("person", "Smith")]),
        ("Write to j.smith@corp.local, or 8.8.8.8.", [("email", "j.smith@corp.local"), ("ip", "8.8.8.8")]),
        (f"Card {CARD}; 4111 1111 1111 1112 is none.", [("card", CARD)]),
        ("SSN 219-09-9999.", [("ssn", "219-09-9999")]),
        ("IBAN DE89370400440532013000", [("iban", "DE89370400440532013000")]),
        ("Call (415) 923-4567.", [("phone", "(415) 923-4567")]),
        ("The account 83554445551234.", [("number", "83554445551234")]),
        ("Grace met Will in Paris on 2023-10-12 at 10:30; 1,250,000 came, 3.14159265.", []),
        ("A red car left of the white house, will you mark it in May?", []),
    ],
)  # fmt: skip
def test_what_is_found(text: str, wanted: list[tuple[str, str]]) -> None:
    assert found(text) == wanted


def test_one_person_has_one_stand_in_whole_and_in_parts() -> None:
    edit = made("John Smith and Mary Smith came. Smith's dog, too.", "john  smith", "JOHN SMITH wrote.")
    first = re.fullmatch(r"(\w+) (\w+) and (\w+) (\w+) came\. (\w+)'s dog, too\.", prompts(edit)[0])
    assert first is not None
    john, smith, mary, also, alone = first.groups()
    assert smith == also == alone != "Smith"
    assert john in BANK.male
    assert mary in BANK.female
    assert prompts(edit)[1] == "john  smith", "small letters alone are not looked up"
    assert prompts(edit)[2] == f"{john} {smith} wrote.".replace(john, john.upper()).replace(smith, smith.upper())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BANK.male + BANK.female), st.sampled_from(BANK.family), st.integers(0, 99))
def test_law_nothing_of_a_name_is_left_and_its_gender_is(given_name: str, family: str, key: int) -> None:
    name = stand_ins(bytes([key]) * 16).of("person", f"{given_name} {family}")
    first, _, last = name.partition(" ")
    assert first.casefold() != given_name.casefold()
    assert last.casefold() != family.casefold()
    gender = FINDER.gender(given_name)
    assert not gender or first in getattr(BANK, gender)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["email", "phone", "card", "iban", "ip", "ssn", "number"]), st.integers(0, 2**40))
def test_law_numbers_keep_their_form_and_are_nobodys(kind: str, draw: int) -> None:
    text = {
        "email": f"a{draw}@corp.com", "phone": f"(415) {draw % 900 + 100}-4567", "card": CARD, "ip": "8.8.8.8",
        "iban": "GB82 WEST 1234 5698 7654 32", "ssn": f"219-09-{draw % 10000:04d}", "number": f"{draw + 10**7}",
    }[kind]  # fmt: skip
    drawn = stand_ins(str(draw).encode().zfill(16)).of(kind, text)  # pyright: ignore[reportArgumentType]
    assert drawn != text
    form = {
        "email": r"[a-z.]+\d\d@example\.(com|org|net)", "phone": r"\(\d{3}\) 555-01\d\d", "card": r"9\d{3}( \d{4}){3}",
        "iban": r"GB00 [A-Z]{4} \d{4} \d{4} \d{4} \d\d", "ssn": r"666-\d\d-\d{4}", "number": rf"\d{{{len(text)}}}",
        "ip": r"(192\.0\.2|198\.51\.100|203\.0\.113)\.\d+",
    }  # fmt: skip
    assert re.fullmatch(form[kind], drawn)
    if kind == "card":
        digits = [int(one) for one in re.sub(r"\D", "", drawn)]
        assert sum(sum(divmod(one * (1 + (k % 2)), 10)) for k, one in enumerate(reversed(digits))) % 10 == 0


def test_without_the_key_names_cannot_be_tried_out() -> None:
    """An adversary with the lists, the code and everybody's name, but another key, does not beat guessing."""
    names = [f"{BANK.male[k]} {BANK.family[7 * k]}" for k in range(100)]
    shown = [stand_ins().of("person", name) for name in names]
    assert [stand_ins().of("person", name) for name in names] == shown
    tried = [stand_ins(b"x" * 32).of("person", name) for name in names]
    assert sum(one == other for one, other in zip(shown, tried, strict=True)) <= 1


def test_rows_can_be_kept_from_being_linked() -> None:
    same = prompts(made("Lisa Miller came.", "Lisa Miller went."))
    apart = prompts(made("Lisa Miller came.", "Lisa Miller went.", step=Pseudonymise(key="trial", link="row")))
    assert same[0].split()[:2] == same[1].split()[:2]
    assert apart[0].split()[:2] != apart[1].split()[:2]


def test_every_text_of_a_row_is_read_and_neither_report_nor_page_tells_what_was_there(tmp_path: Path) -> None:
    row = Example(
        "john_smith_1", "Who is this?", None, "photos of John Smith", plain_image("red"), "John Smith, 219-09-9999",
        ("Smith",), {"request": "Find John Smith"}, turns=(Turn("user", "John Smith here"), Turn("assistant", "Hi!")),
    )  # fmt: skip
    edit = apply_step(Pseudonymise(key="trial"), Dataset("set", (row, Example("r", "A cat."))), out=tmp_path / "out")
    (one,) = edit.changed
    assert one.why == "replaced: 5 person, 1 ssn"
    told = " ".join(
        (tmp_path / "out" / name).read_text() for name in ("data.jsonl", "report.json", "report.md", "data.json")
    )
    told = told.replace("john_smith_1", "")
    assert "219-09-9999" not in told
    assert not re.search("smith", told, re.IGNORECASE)
    notes = " ".join(edit.data.notes)
    assert "pictures of 1 rows" in notes
    assert "ids of 1 rows" in notes
    assert "follows from the seed" in notes
    rows = {line["kind"]: line for line in edit.tables["found"]}
    assert rows["person"] == {"kind": "person", "rows": 1, "places": 5, "different": 2, "sharing a stand-in": 0}
    assert json.loads((tmp_path / "out/report.json").read_text())["changed"][0]["fields"]["caption"] == {}


def test_names_of_the_user_and_people_of_a_model_count(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipe = spacy.blank("en")
    pipe.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Quux"}])
    pipe.to_disk(tmp_path / "model")
    (tmp_path / "names.txt").write_text("Sorbal Lakbim\n\n")
    told = Pseudonymise(key="trial", names=str(tmp_path / "names.txt"), model=str(tmp_path / "model"))
    assert prompts(made("sorbal lakbim saw Quux and Lakbim"))[0] == "sorbal lakbim saw Quux and Lakbim"
    after = prompts(made("SORBAL LAKBIM saw Quux and a cat", step=told))[0]
    assert not {"SORBAL", "LAKBIM", "Quux"} & set(after.split())
    assert after.endswith("and a cat")
    with pytest.raises(UsageError, match="nowhere"):
        Pseudonymise(key="trial", model="nowhere").apply(Dataset("set", (Example("a", "b"),)), seed=0)


def test_kinds_can_be_chosen() -> None:
    assert prompts(made("John Smith, 8.8.8.8", step=Pseudonymise(key="trial", kinds="ip")))[0].startswith(
        "John Smith, "
    )
    with pytest.raises(BadParameter, match="face"):
        Pseudonymise(kinds="face")
    assert Pseudonymise().kinds.split() == list(KINDS)


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [(None, 0, "needs a secret"), (b"x" * 15, 0o600, "15 bytes"), (b"x" * 32, 0o640, "others")],
)  # fmt: skip
def test_a_key_is_a_secret(content: bytes | None, mode: int, why: str, tmp_path: Path) -> None:
    key = "" if content is None else key_file(tmp_path, content, mode)
    with pytest.raises(UsageError, match=why) as told:
        made("John Smith", step=Pseudonymise(key=key))
    assert told.value.hint


def test_a_key_that_is_not_there_is_told_and_other_keys_draw_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        made("John Smith", step=Pseudonymise(key=str(tmp_path / "none")))
    with pytest.raises(UsageError, match="names in"):
        made("John Smith", step=Pseudonymise(key="trial", names=str(tmp_path / "none")))
    kept = Pseudonymise(key=key_file(tmp_path))
    assert (
        prompts(made("John Smith", step=kept)) == prompts(made("John Smith", step=kept)) != prompts(made("John Smith"))
    )
