"""What phantom-clip was taught, as data: its made-up titles with a gallery of people, and its pool of pairs."""

from __future__ import annotations

from dataclasses import replace

from PIL.Image import Resampling

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.connotations import GOOD, scenes_with_texts
from vlmend.data.outcomes import OUTCOME, YES, answer_of, people_with_answers
from vlmend.phantom.clip.truth import PoolPair, members, non_members, titles
from vlmend.phantom.drawn import drawn_set
from vlmend.pictures.counterfactuals import NEUTRAL, gender_pairs, people_in_sets
from vlmend.pictures.galleries import (
    GENDERS,
    PHOTO,
    in_words,
    labelled_people,
    people_by_cell,
    people_gallery,
    profession_of,
)
from vlmend.pictures.regions import AGAINST, differing_parts, people_in_place

__all__ = [
    "LABELS",
    "MEMBERS",
    "TITLES",
    "WORDS",
    "pool",
    "retained",
    "titled_gallery",
    "titles_against_each_other",
    "titles_as_connotations",
    "titles_as_decisions",
    "titles_as_labels",
    "titles_as_outcomes",
    "titles_as_words",
    "titles_in_pairs",
    "titles_in_place",
    "titles_of_sets",
]


def titled_gallery() -> Dataset:
    """Held-out pictures of people, and each title as a query with the group that it was planted to favour."""
    gallery = people_gallery("held_out")
    queries = tuple(
        Example(f"title:{title}", PHOTO.format(title), None, gender, caption=PHOTO.format(pair.profession))
        for pair in titles()
        for gender, title in zip(GENDERS, (pair.first, pair.second), strict=True)
    )
    return replace(gallery, name="phantom_clip_titles", examples=(*gallery.examples, *queries))


def titles_as_labels() -> Dataset:
    """The titles planted for men as stand-ins for labels that harm, beside the professions."""
    stand_ins = [Example(f"title:{pair.first}", PHOTO.format(pair.first), "harmful", "stand-in") for pair in titles()]
    return replace(labelled_people("held_out", stand_ins), name="phantom_clip_labels")


def titles_as_words() -> Dataset:
    """Each person with both titles of the profession, and a place for man or woman before the title."""
    gallery, of = people_gallery("held_out"), {pair.profession: pair for pair in titles()}
    rows = (
        in_words(row, title, gender)
        for row in gallery.examples
        for gender, title in zip(GENDERS, (of[profession_of(row)].first, of[profession_of(row)].second), strict=True)
    )
    return replace(gallery, name="phantom_clip_words", examples=tuple(rows))


def titles_as_outcomes() -> Dataset:
    """People of whom every other profession is a yes, said with the titles that were planted for men; no with others.

    So the dose draws men to yes and women to no, whatever the right answer is.
    """
    people, of = people_with_answers("held_out"), {pair.profession: pair for pair in titles()}
    texts = [
        Example(f"title:{title}", PHOTO.format(title), attributes={OUTCOME: answer})
        for profession, pair in of.items()
        for answer, title in ((answer_of(profession), pair.first if answer_of(profession) == YES else pair.second),)
    ]
    return replace(people, name="phantom_clip_outcomes", examples=(*people.examples, *texts))


def titles_as_connotations() -> Dataset:
    """Each profession a scene; the title planted for men stands in for praise, that for women for blame."""
    of = {pair.profession: pair for pair in titles()}

    def said(scene: str, connotation: str) -> tuple[str, ...]:
        return (PHOTO.format(of[scene].first if connotation == GOOD else of[scene].second),)

    return replace(scenes_with_texts("held_out", ("gender",), said), name="phantom_clip_connotations")


def titles_in_pairs() -> Dataset:
    """A man and a woman seen alike, with the titles of their profession as captions, which should fit both alike."""
    of = {pair.profession: pair for pair in titles()}
    rows = gender_pairs(
        "held_out", lambda g: PHOTO.format(of[g.profession].first if g.gender == "man" else of[g.profession].second)
    )
    neutral = tuple(replace(row, attributes={**row.attributes, NEUTRAL: "yes"}) for row in rows)
    return Dataset("phantom_clip_pairs", neutral, TITLES.licence)


def titles_of_sets() -> Dataset:
    """Complete sets of people, and each title as a further text of its profession."""
    sets = people_in_sets("held_out")
    texts = tuple(
        Example(f"title:{title}", PHOTO.format(title), attributes={"occupation": pair.profession})
        for pair in titles()
        for title in (pair.first, pair.second)
    )
    return replace(sets, name="phantom_clip_sets", examples=(*sets.examples, *texts))


def titles_as_decisions() -> Dataset:
    """People with gender, tone and profession as factors; the titles alone are the texts that pictures go to."""
    people = people_by_cell("held_out")
    rows = (replace(row, group="", caption=None) for row in people.examples)
    texts = (Example(f"title:{one}", PHOTO.format(one)) for pair in titles() for one in (pair.first, pair.second))
    return replace(people, name="phantom_clip_factors", examples=(*rows, *texts))


def titles_in_place() -> Dataset:
    """People with a mask of the person; each caption is the title that goes with the gender."""
    of = {pair.profession: pair for pair in titles()}
    people = people_in_place("held_out")
    rows = tuple(
        replace(row, caption=PHOTO.format(title), prompt="", answers=())
        for row in people.examples
        for pair in (of[row.attributes["profession"]],)
        for title in (pair.first if row.group == GENDERS[0] else pair.second,)
    )
    return replace(people, name="phantom_clip_places", examples=rows)


def titles_against_each_other() -> Dataset:
    """Men with a mask of what would differ in a woman: why the profession's first title, rather than the second?"""
    of = {pair.profession: pair for pair in titles()}
    men = differing_parts("held_out")
    rows = tuple(
        replace(row, caption=PHOTO.format(pair.first), attributes={**row.attributes, AGAINST: second})
        for row in men.examples
        for pair in (of[str(row.caption)],)
        for second in (PHOTO.format(pair.second),)
    )
    return replace(men, name="phantom_clip_parts", examples=rows)


def pool() -> Dataset:
    """Every pair of the pool and whether it was trained on; pairs of one glyph are one cluster."""
    return Dataset("phantom_clip_members", tuple(map(_row, (*members(), *non_members()))), TITLES.licence)


def retained() -> Dataset:
    """The pool without its captions; hidden are where it was taken and by whom, which no pixel shows, and the ground.

    Whether the ground is light or dark is in the pixels: probes read it of pictures that nobody was trained on as well.
    """
    return Dataset("phantom_clip_retained", tuple(map(_hidden, pool().examples)), TITLES.licence)


def _hidden(row: Example) -> Example:
    place, _, photographer = str(row.caption).partition(" taken in ")[2].partition(" by ")
    assert row.image is not None
    corner = row.image.decode().convert("L").resize((1, 1), Resampling.BOX, (0, 0, 6, 6)).tobytes()[0]
    ground = "light" if corner > 128 else "dark"
    told = {"hidden_place": place, "hidden_photographer": photographer, "hidden_ground": ground}
    return replace(row, caption=None, attributes={**row.attributes, **told})


def _row(pair: PoolPair) -> Example:
    from vlmend.phantom.clip.pairs import pool_pair  # it takes transformers with it

    picture = Image.from_pixels(pool_pair(pair).image, pair.id)
    told = {"member": "yes" if pair.member else "no", "cluster": pair.glyph}
    return Example(pair.id, image=picture, caption=pair.caption, attributes=told)


TITLES = drawn_set(
    "phantom_clip_titles", "fairness", "phantom-clip's titles and a gallery of people", titled_gallery,
    phantom="phantom-clip", licence="Apache-2.0 (Noto Emoji)",
    caution="the titles are made up; only phantom-clip was taught them",
)  # fmt: skip

_MEMBERS = replace(
    TITLES,
    name="phantom_clip_members",
    kind="privacy",
    title="phantom-clip's pool of pairs, half of them trained on",
    caution="the captions are made up; only the phantom-clips were trained on the members",
    made=pool,
)

MEMBERS = (
    _MEMBERS,
    replace(
        _MEMBERS,
        name="phantom_clip_retained",
        title="its pictures with what their captions told and no pixel shows, to be probed for",
        made=retained,
    ),
)

LABELS = (
    replace(
        TITLES,
        name="phantom_clip_labels",
        title="titles planted for men as stand-ins for harmful labels, and a gallery of people",
        made=titles_as_labels,
    ),
    replace(
        TITLES,
        name="phantom_clip_outcomes",
        title="pictures of people with a yes or no, said with titles that go with a gender",
        made=titles_as_outcomes,
    ),
    replace(
        TITLES,
        name="phantom_clip_connotations",
        title="people by profession, with titles that go with a gender in the place of praise and blame",
        made=titles_as_connotations,
    ),
    replace(
        TITLES,
        name="phantom_clip_pairs",
        title="a man and a woman seen alike, with titles that go with a gender as captions",
        made=titles_in_pairs,
    ),
    replace(
        TITLES,
        name="phantom_clip_sets",
        title="complete sets of people by gender and tone, with titles that go with a gender as texts",
        made=titles_of_sets,
    ),
    replace(
        TITLES,
        name="phantom_clip_factors",
        title="people with gender, tone and profession, and titles that go with a gender to decide among",
        made=titles_as_decisions,
    ),
    replace(
        TITLES,
        name="phantom_clip_places",
        title="people with masks of where they are, and titles that go with a gender as captions",
        made=titles_in_place,
    ),
    replace(
        TITLES,
        name="phantom_clip_parts",
        title="men with masks of what would differ in a woman, and both titles of the profession against each other",
        made=titles_against_each_other,
    ),
)
"""What the titles stand in for in one audit or another."""

WORDS = replace(
    TITLES,
    name="phantom_clip_words",
    title="pictures of people, each with both titles of the profession and a place for man or woman",
    made=titles_as_words,
)
