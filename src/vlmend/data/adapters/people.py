"""Pictures of people with what is known of them, for audits of fairness: VisoGender."""

from __future__ import annotations

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, beside, maybe, text

__all__ = ["ADAPTERS"]

PRONOUNS = {"masculine": "his", "feminine": "her"}

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def _visogender(row: Row, place: Place) -> list[Draft] | str:
    """The authors' TSV (IDX, Occupation, Participant or Object, perceived genders, URL) or JSONL of the same."""
    own, occupation = text(row, "IDX", "id"), text(row, "Occupation", "occupation")
    other = text(row, "Participant", "Object", "other")
    gender = text(row, "Occupation_perceived_gender", "occupation_gender")
    link = maybe(row, "URL type (Type NA if can't find)", "url")
    if link in ("", "NA"):
        return "published without a picture"
    if gender not in PRONOUNS:
        raise Lacking(f"an occupation's gender of {gender} (masculine or feminine)")
    told = {
        "occupation": occupation,
        "participant_gender": maybe(row, "Participant_perceived_gender", "participant_gender"),
    }
    return [
        Draft(
            f"The {occupation} and {{}} {other}",
            id=own,
            group=gender,
            pictures=(*(own + suffix for suffix in SUFFIXES), *beside(link.rpartition("/")[2].partition("?")[0])),
            answers=(PRONOUNS[gender],),
            attributes={name: value for name, value in told.items() if value},
        )
    ]


ADAPTERS = (
    Adapter(
        name="visogender",
        kind="fairness",
        title="VisoGender",
        paper="Hall et al., NeurIPS 2023, arXiv 2306.12424",
        repository="https://github.com/oxai/visogender",
        licence="CC BY 4.0",
        files=("visogender.jsonl", "**/OP_Visogender_11012024.tsv", "**/OO_Visogender_10052025.tsv"),
        convert=_visogender,
        how="Clone the repository and fetch the linked pictures into one folder, each called by its row (OP_1.jpg).",
        pictures="needed",
        caution="genders are as annotators perceived them, and links die: say how many pictures were found",
        unlabelled=690,
        test_only=True,
    ),
)
