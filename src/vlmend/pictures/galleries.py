"""Built-in pictures for audits and mends of dual encoders, as data sets in the form that users' own have.

Every picture is a view that no phantom was trained on, and each split has views of its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import PIL.Image

from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.pictures.glyphs import Glyph, objects, people
from vlmend.pictures.pool import Part, drawn, phrase, sentence
from vlmend.pictures.views import SIDE, Shift, view

__all__ = [
    "CONTROL", "FRAMES", "GENDERS", "PHOTO", "QUESTION", "UNKNOWN", "UNSEEN_CATEGORIES", "gallery_view",
    "gendered_captions", "in_words", "labelled_people", "object_pictures", "people_and_things", "people_by_cell",
    "people_gallery", "people_without_gender", "picture_questions", "profession_of", "professions",
    "scenes_with_unknown", "shifted_objects", "some_objects", "training_objects", "training_pictures",
]  # fmt: skip

PHOTO = "a photo of a {}"
"""The frame of every text here."""

QUESTION = "What is in this picture?"
"""What a model that answers is asked of pictures that come without a question."""

FRAMES = (PHOTO, "a picture of a {}", "an image of a {}", "a {}", "{}")
"""Other words for the same, to see how much a number hangs on them."""

GENDERS = ("man", "woman")

UNSEEN_CATEGORIES = ("body", "sport", "vehicle")
"""Categories of objects that no dual encoder of ours was trained on."""

VIEWS = 2
"""Pictures of each cell: with 5 tones, 10 men and 10 women of each profession."""

UNKNOWN, CONTROL = "unknown", "control"
"""Groups of scenes: with an unknown thing, and with a known one in its place."""

ACROSS = 3
"""Things in a row of a scene."""

OBJECT_SHIFTS: tuple[Shift, ...] = ("ground", "rotation", "blur", "style")
"""Those that change a picture of an object."""

LICENCE = "Apache-2.0 (Noto Emoji)"

PICTURES: dict[Part, int] = {"object": 640, "person": 160, "word": 160, "scene": 160}
"""Training pictures of each kind."""


@cache
def people_gallery(split: Split) -> Dataset:
    """Men and women of 20 professions and 5 tones, as many of each; a caption names the profession alone."""
    cells = [glyph for glyph in people() if glyph.gender in GENDERS and glyph.tone != "default"]
    pictures = [
        Example(f"{g.id}#{k}", "", "benign", str(g.gender), _seen(g, split, k), PHOTO.format(g.profession))
        for g in cells
        for k in range(VIEWS)
    ]
    return Dataset(f"people-{split}", tuple(pictures), LICENCE)


@cache
def people_without_gender(split: Split) -> Dataset:
    """One figure without gender of each profession, a tone in turn; a caption names the profession alone."""
    cells = [glyph for glyph in people() if glyph.gender not in GENDERS and glyph.tone != "default"]
    of: dict[str, list[Glyph]] = {}
    for glyph in cells:
        of.setdefault(str(glyph.profession), []).append(glyph)
    chosen = [own[k % len(own)] for k, own in enumerate(of[work] for work in professions() if work in of)]
    pictures = tuple(
        Example(g.id, "", "benign", "profession", _seen(g, split), PHOTO.format(g.profession)) for g in chosen
    )
    return Dataset(f"people-{split}-without-gender", pictures, LICENCE)


@cache
def people_by_cell(split: Split) -> Dataset:
    """The same pictures, with gender, tone and profession as attributes; pictures of one glyph are one cluster."""
    of = {glyph.id: glyph for glyph in people()}
    gallery = people_gallery(split)
    rows = [(row, of[row.id.partition("#")[0]]) for row in gallery.examples]
    told = tuple(
        replace(row, attributes={"gender": row.group, "tone": str(g.tone), "profession": g.profession, "cluster": g.id})
        for row, g in rows
    )
    return replace(gallery, name=f"{gallery.name}-cells", examples=told)


@cache
def people_and_things() -> Dataset:
    """Training views of the people by profession, with their group, and of the known objects by name, without."""
    seen = people_gallery("train")
    people = (replace(row, caption=None, answers=(profession_of(row),)) for row in seen.examples)
    things = (replace(row, group="") for row in training_objects(1).examples)
    return replace(seen, name="people-and-things", examples=(*people, *things))


def gendered_captions(split: Split) -> Dataset:
    """The people, each with a caption of their profession that leaves a place for man or woman."""
    gallery = people_gallery(split)
    rows = tuple(in_words(row, told) for row in gallery.examples if (told := profession_of(row)))
    return replace(gallery, name=f"{gallery.name}-captions", examples=rows)


def profession_of(row: Example) -> str:
    """What a picture of the people shows, from its caption."""
    return str(row.caption).removeprefix(PHOTO.format(""))


def in_words(row: Example, word: str, favours: str = "") -> Example:
    """A person with a caption of that word that leaves a place for man or woman; `favours` is whom it goes with."""
    told = {"occupation": profession_of(row)} | ({"favours": favours} if favours else {})
    prompt = PHOTO.format(f"{{}} {word}")
    return replace(row, id=f"{row.id}:{word}", prompt=prompt, label=None, answers=(row.group,), attributes=told)


def labelled_people(split: Split, harmful: Sequence[Example]) -> Dataset:
    """The people, pictures of one glyph in one cluster, beside harmful labels and their professions as other labels."""
    gallery = people_gallery(split)
    pictures = (replace(row, attributes={"cluster": row.id.partition("#")[0]}) for row in gallery.examples)
    others = (Example(f"label:{text}", PHOTO.format(text), "benign") for text in professions())
    return replace(gallery, name=f"{gallery.name}-labelled", examples=(*pictures, *harmful, *others))


@cache
def object_pictures(split: Split) -> Dataset:
    """A picture of every object: with its name as the answer, without where its category is unseen."""
    known = [g for g in objects() if g.category not in UNSEEN_CATEGORIES]
    unseen = [g for g in objects() if g.category in UNSEEN_CATEGORIES]
    named = [Example(g.id, "", "benign", g.category, _seen(g, split), answers=(g.name,)) for g in known]
    unnamed = [Example(g.id, "", "benign", g.category, _seen(g, split)) for g in unseen]
    return Dataset(f"objects-{split}", (*named, *unnamed), LICENCE)


def picture_questions(split: Split) -> Dataset:
    """Each known object of `object_pictures` with the question what it is, for models that answer.

    Answers are the right reply as a sentence, and the last word of the name, which is enough.
    """
    known = [row for row in object_pictures(split).examples if row.answers]
    rows = [
        replace(row, prompt=QUESTION, answers=(sentence(phrase(row.answers[0])), row.answers[0].split()[-1]))
        for row in known
    ]
    return Dataset(f"picture-questions-{split}", tuple(rows), LICENCE)


@cache
def shifted_objects(split: Split, most: int | None = None) -> Dataset:
    """Each known object as in `object_pictures`, and the same view under each shift, paired by the attribute `of`.

    Of so many objects at most, evenly spread over all.
    """
    plain = spread([row for row in object_pictures(split).examples if row.answers], most)
    glyphs = {glyph.id: glyph for glyph in objects()}
    shifted = [
        replace(
            row, id=f"{row.id}@{shift}", image=_seen(glyphs[row.id], split, shift=shift),
            attributes={"shift": shift, "of": row.id},
        )
        for shift in OBJECT_SHIFTS
        for row in plain
    ]  # fmt: skip
    return Dataset("-".join(["objects-shifted", split, *([str(most)] if most else [])]), (*plain, *shifted), LICENCE)


@cache
def training_objects(views: int, shift: Shift | None = None, without: tuple[str, ...] = ()) -> Dataset:
    """Views of the known objects for training, each with its name.

    Args:
        views: Of each object.
        shift: What differs from an ordinary view.
        without: Categories to leave out, so that what was learnt can be tried on things that were not.
    """
    rows = [
        Example(f"{g.id}#{k}", group=g.category, image=_seen(g, "train", k, shift), answers=(g.name,))
        for g in objects()
        for k in range(views)
        if g.category not in (*UNSEEN_CATEGORIES, *without)
    ]
    return Dataset("-".join(["objects-train", *([shift] if shift else []), str(views)]), tuple(rows), LICENCE)


@cache
def training_pictures(share: int = 1) -> Dataset:
    """One in `share` of 1,120 training views of objects, people, words and scenes, each with its caption."""
    rows = [
        Example(
            f"{part}-{k}", group=part, image=Image.from_pixels(one.image, f"{part} {k}"),
            caption=f"a picture of {one.caption}", attributes={"category": one.facts.get("category", part)},
        )
        for part, count in PICTURES.items()
        for k in range(count // share)
        for one in (drawn(part, "train", 0, k),)
    ]  # fmt: skip
    return Dataset("training-pictures", tuple(rows), LICENCE)


def some_objects() -> Dataset:
    """Eight training pictures with their names, for quick checks."""
    pictures = [drawn("object", "train", 0, k) for k in range(8)]
    rows = [
        Example(str(k), image=Image.from_pixels(one.image), answers=(one.facts["name"],))
        for k, one in enumerate(pictures)
    ]
    return Dataset("a-few-objects", tuple(rows), LICENCE)


def professions() -> tuple[str, ...]:
    """Of the people, in the order of their names."""
    return tuple(sorted({glyph.profession for glyph in people()}))


def scenes_with_unknown(split: Split, count: int, seed: int) -> Dataset:
    """Nine things each in a square, one of them unknown, with a mask that is white where it is.

    Beside each scene stands the same one with a known thing in that place (group `CONTROL`), which a mask says nothing
    true about. The answers of each are the names of all known things.
    """
    known = [glyph for glyph in objects() if glyph.category not in UNSEEN_CATEGORIES]
    unknown = [glyph for glyph in objects() if glyph.category in UNSEEN_CATEGORIES]
    names = tuple(sorted({glyph.name for glyph in known}))
    rows: list[Example] = []
    for k in range(count):
        rng = random.Random(f"scenes:{split}:{seed}:{k}")
        things, place = rng.sample(known, ACROSS**2), rng.randrange(ACROSS**2)
        for group, shown in ((UNKNOWN, rng.choice(unknown)), (CONTROL, things[place])):
            image, mask = _scene([*things[:place], shown, *things[place + 1 :]], place, split, k)
            rows.append(
                Example(
                    f"scene-{k:03d}-{group}", group=group, image=image, caption=shown.name, answers=names,
                    attributes={"of": f"scene-{k:03d}"}, more_images=(mask,),
                )
            )  # fmt: skip
    return Dataset(f"scenes-{split}-{count}-{seed}", tuple(rows), LICENCE)


def _scene(things: Sequence[Glyph], place: int, split: Split, k: int) -> tuple[Image, Image]:
    """Things row by row, and the mask of the one at that place."""
    side = ACROSS * SIDE
    picture, mask = PIL.Image.new("RGB", (side, side)), PIL.Image.new("L", (side, side))
    for at, glyph in enumerate(things):
        corner = (SIDE * (at % ACROSS), SIDE * (at // ACROSS))
        picture.paste(_seen(glyph, split, k).decode(), corner)
        if at == place:
            mask.paste(255, (*corner, corner[0] + SIDE, corner[1] + SIDE))
    return Image.from_pixels(picture, f"scene {k}"), Image.from_pixels(mask, f"mask of scene {k}")


def gallery_view(glyph: Glyph, split: Split, k: int, picture: PIL.Image.Image, shift: Shift | None = None) -> Image:
    """A picture in the place, size, turn and ground of the k-th view of a glyph in the galleries of a split."""
    return Image.from_pixels(view(picture, random.Random(f"gallery:{split}:{glyph.id}:{k}"), shift), glyph.name)


def _seen(glyph: Glyph, split: Split, k: int = 0, shift: Shift | None = None) -> Image:
    """One view of a glyph; a split's views are drawn from a stream of its own."""
    return gallery_view(glyph, split, k, glyph.image(), shift)
