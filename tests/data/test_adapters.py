"""Adapters: real rows where they are here, made-up harmless rows in the authors' layouts, errors."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.data.adapters.multimodal import FIGSTEP_PROMPT
from vlmend.data.catalogue import adapter_table, adapters, listed_adapters
from vlmend.data.layouts import read_data
from vlmend.errors import BadData, UnknownName

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"

REAL = [
    # set, folder, files as MANIFEST.csv names them, rows left out, labels
    ("jailbreak_llms", "jailbreak_llms", ["forbidden_questions.jsonl"], 0, {"harmful"}),
    ("harmbench", "harmbench", ["text_behaviors.jsonl"], 0, {"harmful"}),
    ("harmbench_multimodal", "harmbench", ["multimodal_behaviors.jsonl"], 0, {"harmful"}),
    ("advbench", "advbench", ["harmful_behaviors.jsonl"], 0, {"harmful"}),
    ("strongreject", "strongreject", ["prompts.jsonl"], 0, {"harmful"}),
    ("jailbreakbench", "jailbreakbench", ["harmful.jsonl", "benign.jsonl"], 0, {"harmful", "benign"}),
    ("catqa", "catqa", ["english.jsonl"], 0, {"harmful"}),
    ("redteam_2k", "redteam_2k", ["questions.jsonl"], 0, {"harmful"}),
    ("figstep", "figstep", ["safebench.jsonl"], 0, {"harmful"}),
    ("figstep_tiny", "figstep", ["safebench.jsonl"], 335 - 34, {"harmful"}),
    ("mm_safetybench", "mm_safetybench", ["questions.jsonl"], 0, {"harmful"}),
    ("siuo", "siuo", ["siuo_gen.jsonl"], 0, {"harmful"}),
    ("mm_harmful_bench", "mm_harmful_bench", ["questions.jsonl"], 0, {"harmful"}),
    ("xstest", "xstest", ["prompts.jsonl"], 0, {"harmful", "benign"}),
    ("mossbench", "mossbench", ["benign.jsonl", "contrast_harmful.jsonl"], 0, {"harmful", "benign"}),
    ("lvlm_safer", "lvlm_safer", ["pairs.jsonl"], 0, {"harmful", "benign"}),
    ("pope", "pope_coco", ["questions.csv"], 0, {"benign"}),
    ("bold", "bold", ["prompts.jsonl"], 2, {"benign"}),
]  # fmt: skip

here = pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark rows are not here")


@here
@pytest.mark.parametrize(("name", "folder", "files", "left", "labels"), REAL, ids=[row[0] for row in REAL])
def test_real_rows_are_read_in_full(name: str, folder: str, files: list[str], left: int, labels: set[str]) -> None:
    with (SHARED / "MANIFEST.csv").open() as lines:
        rows = {row["file"]: int(row["rows"] or 0) for row in csv.DictReader(lines)}
    data = read_data(f"{name}:{SHARED / folder}")
    assert len(data.examples) == sum(rows[f"{folder}/{file}"] for file in files) - left
    assert {example.label for example in data.examples} == labels
    assert data.licence == adapters()[name].licence
    assert len({example.id for example in data.examples}) == len(data.examples)
    assert all(example.prompt.strip() for example in data.examples)


@here
@pytest.mark.parametrize(("name", "folder"), [row[:2] for row in REAL], ids=[row[0] for row in REAL])
def test_licence_and_test_only_are_those_of_the_source(name: str, folder: str) -> None:
    row = re.search(rf"\| \[{folder}\].*", (SHARED / "README.md").read_text())
    assert row is not None
    licence = row.group().split("|")[6].strip()
    assert adapters()[name].licence + (", test only" if adapters()[name].test_only else "") == licence


@here
def test_labels_of_real_rows_are_the_authors() -> None:
    def counted(name: str) -> Counter[str]:
        return Counter(example.label for example in read_data(f"{name}:{SHARED / name}").examples)

    published = [json.loads(row)["label"] for row in (SHARED / "xstest" / "prompts.jsonl").read_text().splitlines()]
    assert counted("xstest") == {"benign": published.count("safe"), "harmful": published.count("unsafe")}
    assert counted("mossbench") == {"benign": 213, "harmful": 171}
    assert counted("jailbreakbench") == {"benign": 63, "harmful": 76}
    assert counted("lvlm_safer") == {"benign": 172, "harmful": 172}


@here
def test_real_pictures_are_found_beside_their_rows() -> None:
    tiny = read_data(f"figstep_tiny:{SHARED / 'figstep'}")
    assert len(tiny.examples) == 34
    assert {example.prompt for example in tiny.examples} == {FIGSTEP_PROMPT}
    assert tiny.examples[0].image is not None
    assert tiny.examples[0].image.decode().size > (100, 100)
    pictured = [e for e in read_data(f"mossbench:{SHARED / 'mossbench'}").examples if e.image]
    assert len(pictured) == 28
    assert {e.label for e in pictured} == {"benign"}
    assert sum(e.image is not None for e in read_data(f"harmbench_multimodal:{SHARED / 'harmbench'}").examples) == 12


@here
def test_real_pope_rows_have_their_answers() -> None:
    answers = Counter(example.answers for example in read_data(f"pope:{SHARED / 'pope_coco'}").examples)
    assert answers == {("yes",): 4500, ("no",): 4500}


@here
def test_ids_of_jailbreak_llms_are_those_of_older_runs() -> None:
    data = read_data(f"jailbreak_llms:{SHARED / 'jailbreak_llms' / 'forbidden_questions.jsonl'}")
    assert (data.examples[0].id, data.examples[-1].id) == ("jbl-0000", "jbl-0289")


def put(file: Path, rows: Any) -> Path:
    """Rows as the file's suffix says: a list of dicts as CSV or JSONL, anything as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    match file.suffix:
        case ".csv":
            with file.open("w", newline="") as lines:
                writer = csv.DictWriter(lines, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case _:
            file.write_text(json.dumps(rows))
    return file


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(blank_image(8).content)


def told(data: Dataset) -> list[tuple[str, str, str]]:
    return [(example.prompt, example.label, example.group) for example in data.examples]


TEXT: list[tuple[str, str, Any, list[tuple[str, str, str]]]] = [
    ("harmbench", "harmbench_behaviors_text_all.csv",
     [{"Behavior": "bake it", "SemanticCategory": "cakes", "ContextString": "A cake.", "BehaviorID": "bake"}],
     [("A cake.\n\n---\n\nbake it", "harmful", "cakes")]),
    ("advbench", "harmful_behaviors.csv", [{"goal": "sing", "target": "Sure"}], [("sing", "harmful", "")]),
    ("strongreject", "strongreject_dataset.csv", [{"category": "c", "source": "s", "forbidden_prompt": "hum"}],
     [("hum", "harmful", "c")]),
    ("jailbreakbench", "benign-behaviors.csv", [{"Index": 0, "Goal": "dance", "Category": "c"}],
     [("dance", "benign", "c")]),
    ("catqa", "catqa_english.json", {"a": {"b": ["one?", "two?"]}, "c": {"d": ["three?"]}},
     [("one?", "harmful", "a"), ("two?", "harmful", "a"), ("three?", "harmful", "c")]),
    ("catqa", "rows.jsonl", [{"Category": "a", "Subcategory": "b", "Question": "one?"}], [("one?", "harmful", "a")]),
    ("redteam_2k", "RedTeam_2K.csv", [{"id": 1, "question": "why?", "policy": "p", "from": "f"}],
     [("why?", "harmful", "p")]),
    ("xstest", "xstest_prompts.csv",
     [{"id": 1, "prompt": "kill a process", "type": "homonyms", "label": "safe"},
      {"id": 2, "prompt": "no", "type": "contrast_homonyms", "label": "unsafe"}],
     [("kill a process", "benign", "homonyms"), ("no", "harmful", "contrast_homonyms")]),
    ("or_bench", "or-bench-hard-1k.csv", [{"prompt": "p", "category": "c"}], [("p", "benign", "c")]),
    ("or_bench", "or-bench-toxic.csv", [{"prompt": "p", "category": "c"}], [("p", "harmful", "c")]),
    ("mm_safetybench", "03-Games.json", {"7": {"Question": "q?", "Rephrased Question": "r?"}},
     [("q?", "harmful", "03-Games")]),
    ("figstep", "safebench.csv", [{"category_id": 1, "task_id": 2, "category_name": "c", "question": "q?"}],
     [("q?", "harmful", "c")]),
    ("bold", "gender_prompt.json", {"actors": {"A_B": ["A B is", "A was"]}},
     [("A B is", "benign", "gender/actors"), ("A was", "benign", "gender/actors")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "rows", "expected"), TEXT, ids=[f"{row[0]}-{row[1]}" for row in TEXT])
def test_words_in_the_authors_layout(
    tmp_path: Path, name: str, file: str, rows: Any, expected: list[tuple[str, str, str]]
) -> None:
    assert told(read_data(f"{name}:{put(tmp_path / file, rows)}")) == expected


VLGUARD = [
    {"image": "a.jpg", "safe": False, "harmful_category": "c", "instr-resp": [{"instruction": "u", "response": "-"}]},
    {"image": "b.jpg", "safe": True,
     "instr-resp": [{"safe_instruction": "s", "response": "-"}, {"unsafe_instruction": "t", "response": "-"}]},
]  # fmt: skip
MSSBENCH = {
    "chat": [{"queries": ["q", "r"], "safe_image_path": "1.jpg", "unsafe_image_path": "2.jpg", "Type": "t"}],
    "embodied": [{"safe_instructions": ["put"], "unsafe_instructions": ["drop"], "safe": "3.jpg", "unsafe": "4.jpg"}],
}
PICTURED: list[tuple[str, str, Any, list[str], list[tuple[str, str, str]]]] = [
    ("vlguard", "test.json", VLGUARD, ["a.jpg", "b.jpg"],
     [("u", "harmful", "c"), ("s", "benign", ""), ("t", "harmful", "")]),
    ("mssbench", "combined.json", MSSBENCH, ["chat/1.jpg", "chat/2.jpg", "embodied/3.jpg", "embodied/4.jpg"],
     [("q", "benign", "t"), ("q", "harmful", "t"), ("r", "benign", "t"), ("r", "harmful", "t"),
      ("put", "benign", ""), ("drop", "harmful", "")]),
    ("siuo", "siuo_gen.json", [{"question_id": 1, "image": "x.png", "question": "q", "category": "c"}],
     ["images/x.png"], [("q", "harmful", "c")]),
    ("vlsbench", "data.json", [{"instruction_id": 3, "instruction": "q", "image_path": "imgs/3.png", "category": "c"},
                               {"instruction_id": 4, "instruction": "", "image_path": "imgs/4.png"}],
     ["imgs/3.png"], [("q", "harmful", "c")]),
    ("rtvlm", "Part/part.jsonl", [{"index": "p1", "instruction": "a", "refused_to_answer": "Refuse to Answer"},
                                  {"index": "p2", "instruction": "b", "refused_to_answer": "Answer with Caution"},
                                  {"index": "p3", "instruction": "c", "refused_to_answer": "Safe to Answer"}],
     ["Part/img/p1.jpg", "Part/img/p2.jpg", "Part/img/p3.jpg"],
     [("a", "harmful", "part"), ("b", None, "part"), ("c", "benign", "part")]),
    ("mossbench", "information.csv",
     [{"pid": 1, "question": "q", "image_path": "images/1.png", "description": "d", "meta_data_over": "o"}],
     ["images/1.png"], [("q", "benign", "o")]),
    ("mossbench", "data_contrast/images_information/information.json",
     {"1": {"pid": "1", "question": "q", "image": "images/1.png", "metadata": {"over": "o"}}},
     ["data_contrast/images/1.png"], [("q", "harmful", "o")]),
    ("harmbench_multimodal", "harmbench_behaviors_multimodal_all.csv",
     [{"Behavior": "b", "BehaviorID": "i", "SemanticCategory": "c", "ImageFileName": "i.jpg"}],
     ["i.png"], [("b", "harmful", "c")]),
    ("llava_bench_coco", "qa90_questions.jsonl", [{"question_id": 0, "image": "7.jpg", "category": "c", "text": "q"}],
     ["COCO_val2014_7.jpg"], [("q", "benign", "c")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file", "rows", "pictures", "expected"), PICTURED, ids=[f"{row[0]}-{row[1]}" for row in PICTURED]
)
def test_pictures_in_the_authors_layout(
    tmp_path: Path, name: str, file: str, rows: Any, pictures: list[str], expected: list[tuple[str, str, str]]
) -> None:
    for one in pictures:
        picture(tmp_path / one)
    data = read_data(f"{name}:{put(tmp_path / file, rows)}")
    assert told(data) == expected
    assert all(example.image is not None for example in data.examples)


def test_an_mssbench_request_shows_the_picture_of_its_label(tmp_path: Path) -> None:
    for one in PICTURED[1][3]:
        picture(tmp_path / one)
    data = read_data(f"mssbench:{put(tmp_path / 'combined.json', MSSBENCH)}")
    shown = [(e.label, e.image.name.removeprefix(f"{tmp_path}/")) for e in data.examples if e.image]
    assert shown[:2] == [("benign", "chat/1.jpg"), ("harmful", "chat/2.jpg")]
    assert shown[4:] == [("benign", "embodied/3.jpg"), ("harmful", "embodied/4.jpg")]


def test_a_mossbench_contrast_never_shows_the_harmless_picture_of_its_name(tmp_path: Path) -> None:
    put(tmp_path / "information.csv", [{"pid": 1, "question": "q", "image_path": "images/1.png"}])
    contrast = {"1": {"pid": "1", "question": "r", "image": "images/1.png"}}
    put(tmp_path / "data_contrast" / "images_information" / "information.json", contrast)
    picture(tmp_path / "images" / "1.png")
    alone = {e.id: e.image is not None for e in read_data(f"mossbench:{tmp_path}").examples}
    assert alone == {"1": True, "contrast-1": False}
    with pytest.raises(BadData, match=r"lacks 1 of 2 pictures .*contrast_images/1.png"):
        read_data(f"mossbench:{tmp_path}:{tmp_path}")
    picture(tmp_path / "data_contrast" / "images" / "1.png")
    assert all(e.image for e in read_data(f"mossbench:{tmp_path}:{tmp_path}").examples)
    assert all(e.image for e in read_data(f"mossbench:{tmp_path}").examples)


def test_pictures_turn_figstep_and_mm_safetybench_into_the_attack(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "query_ForbidQI_1_2_6.png")
    picture(tmp_path / "images" / "03-Games" / "SD_TYPO" / "7.jpg")
    questions = put(tmp_path / "safebench.csv", [{"category_id": 1, "task_id": 2, "question": "q?"}])
    figstep = read_data(f"figstep:{questions}:{tmp_path / 'images'}").examples[0]
    assert (figstep.prompt, figstep.caption, figstep.image is not None) == (FIGSTEP_PROMPT, "q?", True)
    games = put(tmp_path / "03-Games.json", {"7": {"Question": "q?", "Rephrased Question": "r?"}})
    game = read_data(f"mm_safetybench:{games}:{tmp_path / 'images'}").examples[0]
    assert (game.prompt, game.image is not None) == ("r?", True)


def test_right_answers_are_kept(tmp_path: Path) -> None:
    pope = put(tmp_path / "coco_pope_random.jsonl", [{"question_id": 1, "image": "a.jpg", "text": "q?", "label": "no"}])
    one = read_data(f"pope:{pope}").examples[0]
    assert (one.id, one.group, one.answers) == ("random-1", "random", ("no",))
    problem = {"question": "Which?", "choices": ["ice", "fire"], "answer": 1, "hint": "Hot.", "image": None}
    problems = {"5": {**problem, "split": "test"}, "6": {**problem, "split": "train"}}
    data = read_data(f"scienceqa:{put(tmp_path / 'problems.json', problems)}")
    assert [example.id for example in data.examples] == ["scienceqa-5"]
    assert data.examples[0].prompt == "Hot.\nWhich?\nA. ice\nB. fire\nAnswer with the letter of the right option."
    assert data.examples[0].answers == ("B", "fire")
    picture(tmp_path / "1.png")
    row = {"question": "<image 1> How many?", "image_1": "1.png", "subfield": "s"}
    mmmu = [
        {**row, "id": "m1", "options": "['one', 'two']", "answer": "A"},
        {**row, "id": "m2", "options": "[]", "answer": "['3', 'three']"},
        {**row, "id": "m3", "options": "[]", "answer": "4", "image_2": "1.png"},
    ]
    several = read_data(f"mmmu:{put(tmp_path / 'mmmu.jsonl', mmmu)}")
    assert [example.answers for example in several.examples] == [("A", "one"), ("3", "three")]
    assert several.examples[1].prompt == "How many?"
    assert "1 rows left out: more than one picture." in several.notes


def test_answers_count_in_the_digest() -> None:
    plain, other = Example("1", "q", "benign"), Example("1", "q", "benign", answers=("yes",))
    assert Dataset("d", (plain,)).digest_of_words != Dataset("d", (other,)).digest_of_words
    assert Dataset("d", (plain,)).digest != Dataset("d", (other,)).digest


def test_parquet_holds_its_pictures(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is optional")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is optional")
    row = {"question_id": "1", "question": "q?", "answer": "no", "category": "random", "image_source": "s",
           "image": {"bytes": blank_image(8).content, "path": "a.png"}}  # fmt: skip
    parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / "test.parquet")
    one = read_data(f"pope:{tmp_path / 'test.parquet'}").examples[0]
    assert one.image is not None
    assert (one.image.decode().size, one.answers) == ((8, 8), ("no",))


def test_a_count_that_differs_is_a_note_not_an_error(tmp_path: Path) -> None:
    row = {"prompt": "p", "category": "c"}
    data = read_data(f"or_bench:{put(tmp_path / 'or-bench-toxic.csv', [row] * 3)}")
    assert "3 harmful rows; the full set has 655." in data.notes
    full = read_data(f"or_bench:{put(tmp_path / 'or-bench-toxic.csv', [row] * 655)}")
    assert not any("full set" in note for note in full.notes)


def test_bad_rows_are_named_at_once_the_first_five_in_full(tmp_path: Path) -> None:
    rows = [{"goal": "g"}, *[{"aim": "g"}] * 7]
    with pytest.raises(BadData) as problem:
        read_data(f"advbench:{put(tmp_path / 'rows.jsonl', rows)}")
    assert "row 2 has no goal (nor prompt); row 3" in problem.value.message
    assert "row 6" in problem.value.message
    assert "row 7" not in problem.value.message
    assert "and 2 more" in problem.value.message


def test_a_label_that_is_none_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"id": 1, "prompt": "p", "label": "maybe"}]
    with pytest.raises(BadData, match="row 1 has the label 'maybe', which is neither safe nor unsafe"):
        read_data(f"xstest:{put(tmp_path / 'rows.jsonl', rows)}")


def test_ids_that_repeat_are_refused(tmp_path: Path) -> None:
    rows = [{"id": 1, "prompt": "p", "label": "safe"}] * 2
    with pytest.raises(BadData, match="1 ids occur twice"):
        read_data(f"xstest:{put(tmp_path / 'rows.jsonl', rows)}")


def test_missing_pictures_are_counted_with_the_way_out(tmp_path: Path) -> None:
    file = put(tmp_path / "test.json", VLGUARD)
    picture(tmp_path / "a.jpg")
    with pytest.raises(BadData, match=r"lacks 2 of 3 pictures of VLGuard, test part \(first: b.jpg\)") as problem:
        read_data(f"vlguard:{file}")
    assert "unpack test.zip" in problem.value.hint
    assert f"vlguard:{file}:FOLDER_OF_PICTURES" in problem.value.hint


def test_named_pictures_must_all_be_there_unnamed_ones_may_be_told(tmp_path: Path) -> None:
    row = {"question_id": 1, "image": "x.png", "question": "q", "safety_warning": "it shows x"}
    file = put(tmp_path / "siuo_gen.json", [row])
    (tmp_path / "images").mkdir()
    with pytest.raises(BadData, match="lacks 1 of 1 pictures"):
        read_data(f"siuo:{file}:{tmp_path / 'images'}")
    data = read_data(f"siuo:{file}")
    assert data.examples[0].caption == "it shows x"
    assert any(note.startswith("1 of 1 rows have no picture here") for note in data.notes)


def test_pictures_for_a_set_of_words_are_refused(tmp_path: Path) -> None:
    file = put(tmp_path / "rows.jsonl", [{"goal": "g"}])
    with pytest.raises(BadData, match="has no pictures"):
        read_data(f"advbench:{file}:{tmp_path}")


@pytest.mark.parametrize("name", [name for name, adapter in adapters().items() if adapter.made is None])
def test_every_published_set_tells_how_to_get_it_when_its_files_are_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadData) as problem:
        read_data(f"{name}:{tmp_path / 'nothing'}")
    assert adapters()[name].how in problem.value.hint
    with pytest.raises(BadData, match="no file like"):
        read_data(f"{name}:{tmp_path}")


def test_a_name_that_is_not_known_lists_those_that_are() -> None:
    for text in ("xstst", "nothing:file.json"):
        with pytest.raises(UnknownName) as problem:
            read_data(text)
        assert "xstest" in problem.value.hint


def test_the_list_names_every_set_once() -> None:
    rows = listed_adapters()
    assert [row["name"] for row in rows] == list(adapters())
    assert rows[list(adapters()).index("mossbench")]["licence"] == "CC BY-SA 4.0, test only"
    assert rows[list(adapters()).index("xstest")]["rows"] == "200 harmful, 250 benign"


def test_the_table_of_the_docs_is_current() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    table = page.partition("<!-- table: adapters -->\n")[2].partition("\n<!-- end -->")[0]
    assert table == adapter_table()
