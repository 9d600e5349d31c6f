"""People and faces with what annotators perceived: FACET and CelebA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.outcomes import NO, OUTCOME, YES
from vlmend.data.rows import Lacking, Row, beside, listed_rows, maybe, read_text, rows_of, text
from vlmend.errors import BadData

__all__ = ["ADAPTERS"]

GENDERS = {"masc": "masculine", "fem": "feminine", "non_binary": "non-binary"}

AGES = {"young": "younger", "middle": "middle", "older": "older"}

TONES = range(1, 11)
"""The Monk skin tone scale."""

SAME_PICTURE = "people in one picture"
"""The field that counts who is marked in a row's picture."""

FACET_FOLDERS = ("imgs_1", "imgs_2", "imgs_3")

LISTED, PARTED, NAMED = "list_attr_celeba", "list_eval_partition", "identity_CelebA"
"""Files of CelebA: attributes, parts, and who is who."""

PARTS = {"0": "train", "1": "validation", "2": "test"}

PHOTO = "a photo of a celebrity with {} hair"


def _facet_rows(path: Path) -> list[Row]:
    """Each person, with how many are marked in the same picture."""
    files = [path] if path.is_file() else sorted(path.glob("**/annotations.csv"))
    rows = [row for file in files for row in rows_of(file, listed_rows)]
    held = Counter(maybe(row, "filename") for row in rows)
    return [{**row, SAME_PICTURE: held[maybe(row, "filename")]} for row in rows]


def _facet(row: Row, place: Place) -> list[Draft] | str:
    """One person; both classes are right, as in the authors' evaluation, which takes pictures of one person alone."""
    del place
    person, file, main = text(row, "person_id"), text(row, "filename"), text(row, "class1")
    if int(row[SAME_PICTURE]) > 1:
        return "more people than one are marked in their picture"
    told = {
        "gender": _chosen(row, "gender_presentation", GENDERS),
        "age": _chosen(row, "age_presentation", AGES),
        "skin_tone": _tone(row),
    }
    further = maybe(row, "class2")
    classes = (main, *([further] if further and further != "none" else []))
    names = tuple(one.replace("_", " ") for one in classes)
    pictures = beside(*(f"{folder}/{file}" for folder in FACET_FOLDERS))
    return [
        Draft("", id=person, group=told["gender"], pictures=pictures, answers=names,
              attributes={"occupation": names[0], "groups_by": "annotators"} | {k: v for k, v in told.items() if v})
    ]  # fmt: skip


def _chosen(row: Row, name: str, values: dict[str, str]) -> str:
    """The one value that is marked; "" where none is, or several are."""
    marked = [said for value, said in values.items() if _count(row, f"{name}_{value}") > 0]
    return marked[0] if len(marked) == 1 else ""


def _tone(row: Row) -> str:
    """The tone with most votes of three annotators; "" where tones share them."""
    votes = {tone: _count(row, f"skin_tone_{tone}") for tone in TONES}
    most = [tone for tone, count in votes.items() if count == max(votes.values())]
    return str(most[0]) if len(most) == 1 else ""


def _count(row: Row, name: str) -> float:
    said = text(row, name)
    try:
        return float(said)
    except ValueError as problem:
        raise Lacking(f"a {name} of {said}, which is no number") from problem


def _celeba_rows(path: Path) -> list[Row]:
    """A row a face with its attributes, then the two texts of the answer."""
    root = path if path.is_dir() else path.parent
    lists = [path] if path.is_file() else sorted(root.glob(f"**/{LISTED}.*"))
    if len(lists) != 1:
        raise BadData(f"{path} holds {len(lists)} files like {LISTED}.txt; it is to hold one.", CELEBA_HOW)
    parts, names = (_second(root, name) for name in (PARTED, NAMED))
    faces = list(_table(lists[0]))
    if not all("image_id" in face for face in faces) or not faces:
        raise BadData(f"{lists[0]} is not {CELEBA}: it lists no faces.", CELEBA_HOW)
    rows = [
        {**face, "part": parts.get(face["image_id"], ""), "name": names.get(face["image_id"], "")} for face in faces
    ]
    return [*rows, *({"answer": answer, "hair": hair} for answer, hair in ((YES, "blond"), (NO, "dark")))]


def _table(file: Path) -> Iterator[dict[str, str]]:
    """Rows of the authors' text (a count, the names, then a face a line) or of the CSV that others made of it."""
    if file.suffix == ".csv":
        yield from ({name: str(value) for name, value in row.items()} for row in rows_of(file, listed_rows))
        return
    lines = read_text(file).splitlines()
    heads = lines[1].split() if len(lines) > 1 else []
    for line in lines[2:]:
        picture, *values = line.split() or [""]
        if picture:
            if len(values) != len(heads):
                raise BadData(f"{file} has {len(values)} values for {picture} and {len(heads)} names.", CELEBA_HOW)
            yield {"image_id": picture, **dict(zip(heads, values, strict=True))}


def _second(root: Path, name: str) -> dict[str, str]:
    """The second column by the first, of a file without heads, or with them as CSV; nothing where there is none."""
    file = next(iter(sorted(root.glob(f"**/{name}.*"))), None)
    if file is None:
        return {}
    lines = [line.replace(",", " ").split() for line in read_text(file).splitlines()]
    return {line[0]: line[1] for line in lines if len(line) == 2}


def _celeba(row: Row, place: Place) -> list[Draft]:
    """A face: whether its hair is blond is to be decided; the group is the attribute Male. Or a text of that answer."""
    del place
    if "answer" in row:
        answer = str(row["answer"])
        return [Draft(PHOTO.format(row["hair"]), id=f"text:{answer}", attributes={OUTCOME: answer})]
    file = text(row, "image_id")
    gender, age, blond = (
        _sign(row, name, *said)
        for name, said in (
            ("Male", ("male", "female")), ("Young", ("young", "not young")), ("Blond_Hair", (YES, NO)),
        )
    )  # fmt: skip
    part, name = PARTS.get(str(row["part"]), ""), str(row["name"])
    told = {"gender": gender, "age": age, OUTCOME: blond, "partition": part, "cluster": name, "groups_by": "annotators"}
    pictures = beside(f"img_align_celeba/{file}", f"Img/img_align_celeba/{file}")
    return [
        Draft("", id=file, group=gender, pictures=pictures, attributes={k: v for k, v in told.items() if v})
    ]  # fmt: skip


def _sign(row: Row, name: str, yes: str, no: str) -> str:
    """What 1 and -1 stand for; the 0 of other copies is taken for -1."""
    said = text(row, name)
    if said not in ("1", "-1", "0"):
        raise Lacking(f"a {name} of {said} (1 or -1)")
    return yes if said == "1" else no


CELEBA = "CelebA, faces of celebrities: is the hair blond, by gender and age"

CELEBA_HOW = (
    "Take Anno/list_attr_celeba.txt, Eval/list_eval_partition.txt and the folder of Img/img_align_celeba.zip from its "
    "page; with Anno/identity_CelebA.txt pictures of one person are drawn together."
)

ADAPTERS = (
    Adapter(
        name="facet",
        kind="fairness",
        title="FACET, people at work and play with what annotators perceived of them",
        paper="Gustafson et al., FACET, ICCV 2023, arXiv 2309.00035",
        repository="https://ai.meta.com/datasets/facet",
        licence="Meta's data licence, research only",
        files=("**/annotations.csv",),
        convert=_facet,
        how=(
            "Accept its licence on its page, take annotations/annotations.csv and unpack imgs_1, imgs_2 and imgs_3 "
            "beside one another."
        ),
        pictures="needed",
        caution=(
            "genders, ages and tones of skin are as annotators perceived them, a tone is told only where it has more "
            "votes than any other, and a tone of skin is no race"
        ),
        unlabelled=None,
        test_only=True,
        walk=_facet_rows,
    ),
    Adapter(
        name="celeba",
        kind="fairness",
        title=CELEBA,
        paper="Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015",
        repository="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="non-commercial research only",
        files=(f"**/{LISTED}.*",),
        convert=_celeba,
        how=CELEBA_HOW,
        pictures="needed",
        caution=(
            "genders and ages are the attributes Male and Young as annotators saw them, people did not consent, what "
            "is not blond counts as dark, and the two texts of the answer are not the authors'"
        ),
        unlabelled=None,
        walk=_celeba_rows,
    ),
)
