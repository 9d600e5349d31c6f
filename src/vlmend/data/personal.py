"""Finds personal data in text: names of people, mail addresses, numbers that point to one person.

Addresses and numbers are found by the pattern recognisers of presidio, without its language models: nothing is
downloaded. Names are found by lists of given and family names (those of Faker), by titles before them and by the user's
own list; a spaCy model can be put beside these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.resources import files
from typing import Any, Literal, cast, get_args

from vlmend.errors import MissingExtra, UsageError

__all__ = ["KINDS", "LOCALES", "Finder", "Found", "Gender", "NameBank", "PersonalKind", "also_words", "bank_of"]

PersonalKind = Literal["person", "email", "phone", "card", "iban", "ip", "ssn", "number"]
"""number: seven digits or more in a row, such as an account, which fit none of the other kinds."""

KINDS: tuple[PersonalKind, ...] = get_args(PersonalKind)

Gender = Literal["male", "female", ""]
"""Of a given name, as the list has it; empty where it stands in both or in neither."""

LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "pt_BR", "sv_SE", "en_IN")
"""Of the lists in which names are looked up."""

ALONE = ("en_US", "en_GB")
"""Of those whose given names are found without a family name, too."""

SURE = 0.4
"""Score that presidio must give: below it are bare digits that only might be a number of that kind."""

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
BETWEEN = re.compile(r"\.?[ \t]+")
"""What may stand between the words of one name."""

TITLES = ("mr", "mrs", "ms", "miss", "mx", "dr", "prof", "professor", "sir", "madam", "lady", "lord", "judge", "nurse")
PARTICLES = (
    "van",
    "von",
    "der",
    "den",
    "de",
    "del",
    "della",
    "di",
    "da",
    "dos",
    "la",
    "le",
    "el",
    "al",
    "bin",
    "ter",
    "zu",
)


@dataclass(frozen=True)
class Found:
    """A place in a text that names or reaches somebody.

    Attributes:
        start, end: Of its characters; the end is one behind the last.
    """

    kind: PersonalKind
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class NameBank:
    """Given and family names, each in the order of its list."""

    male: tuple[str, ...]
    female: tuple[str, ...]
    family: tuple[str, ...]

    @cached_property
    def given(self) -> frozenset[str]:
        """All given names, in small letters."""
        return frozenset(self._genders)

    def gender(self, given: str) -> Gender:
        """What the list says of a given name."""
        return self._genders.get(given.casefold(), "")

    @cached_property
    def _genders(self) -> Mapping[str, Gender]:
        male, female = ({name.casefold() for name in names} for names in (self.male, self.female))
        return {name: "" if name in male & female else "male" if name in male else "female" for name in male | female}


@cache
def also_words() -> frozenset[str]:
    """Given names that are common words, places or brands as well: alone they are no name."""
    return frozenset((files("vlmend.data") / "builtin" / "names_that_are_words.txt").read_text("utf-8").split())


@cache
def bank_of(locales: tuple[str, ...]) -> NameBank:
    """The names that Faker holds for these locales, all together.

    Raises:
        MissingExtra: Faker is not installed.
        UsageError: It has no names of one of them.
    """
    lists = [_lists(locale) for locale in locales]
    return NameBank(*(tuple(dict.fromkeys(name for one in lists for name in one[kind])) for kind in range(3)))


def _lists(locale: str) -> tuple[list[str], list[str], list[str]]:
    try:
        import faker  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as problem:
        raise _missing("faker") from problem
    try:
        provider: Any = import_module(f"faker.providers.person.{locale}").Provider
    except ImportError as problem:
        raise UsageError(
            f"There are no names of the locale {locale!r}.", f"Faker has them by language and country: {LOCALES}."
        ) from problem
    both = getattr(provider, "first_names", ())
    male, female = (map(str, getattr(provider, f"first_names_{gender}", both)) for gender in ("male", "female"))
    return [*male], [*female], [str(name) for name in getattr(provider, "last_names", ())]


Recogniser = Callable[[str], Iterable[tuple[int, int, float]]]


@cache
def _recognisers() -> Mapping[PersonalKind, Recogniser]:
    """Presidio's, by kind; mail addresses without a look at the list of top domains, which it would fetch."""
    try:
        import presidio_analyzer.predefined_recognizers as presidio
    except ImportError as problem:
        raise _missing("presidio-analyzer") from problem

    class Mail(presidio.EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return True

    kinds: list[tuple[PersonalKind, Any]] = [
        ("email", Mail()), ("ssn", presidio.UsSsnRecognizer()), ("card", presidio.CreditCardRecognizer()),
        ("iban", presidio.IbanRecognizer()), ("ip", presidio.IpRecognizer()), ("phone", presidio.PhoneRecognizer()),
    ]  # fmt: skip
    return dict([*((kind, _scored(one)) for kind, one in kinds), ("number", _digits)])


def _scored(recogniser: Any) -> Recogniser:
    """A recogniser of presidio as a function."""

    def find(text: str) -> Iterator[tuple[int, int, float]]:
        for one in cast(Iterable[Any], recogniser.analyze(text, recogniser.supported_entities, None)):
            yield one.start, one.end, one.score

    return find


def _digits(text: str) -> Iterator[tuple[int, int, float]]:
    for one in re.finditer(r"(?<![\w.,])\d{7,}(?![\w]|[.,]\d)", text):
        yield *one.span(), 1.0


class Finder:
    """Finds personal data in texts.

    Args:
        kinds: What is looked for.
        names: Names that are found wherever they stand, whatever the letter case.
        locales: Of the lists in which other names are looked up.
        model: A spaCy model, by name or folder, whose people count too; empty for none.

    Raises:
        MissingExtra: presidio or Faker is not installed.
        UsageError: The model cannot be loaded, or a locale is not known.
    """

    def __init__(
        self, kinds: Sequence[PersonalKind] = KINDS, names: Sequence[str] = (),
        locales: Sequence[str] = LOCALES, model: str = "",
    ) -> None:  # fmt: skip
        self._kinds = tuple(kinds)
        self._bank = bank_of(tuple(locales))
        self._given = self._bank.given
        self._family = frozenset(name.casefold() for name in self._bank.family)
        self._alone = (
            bank_of(tuple(one for one in locales if one.startswith("en_") and one != "en_IN")).given - also_words()
        )
        self._names = _anywhere(names)
        self._model: Any = _spacy(model) if model else None

    def gender(self, given: str) -> Gender:
        """What the lists say of a given name."""
        return self._bank.gender(given)

    def is_given(self, name: str) -> bool:
        """Whether a word is a given name."""
        return name.casefold() in self._given

    def __call__(self, *texts: str) -> list[list[Found]]:
        """What each of the texts of one row holds, in order and without overlap.

        Parts of a name that one of them tells in full are names in all of them, and so is what else was found.
        """
        first = [self._find(text) for text in texts]
        known = {one.text for found in first for one in found}
        parts = {part for found in first for one in found if one.kind == "person" for part in self._parts(one.text)}
        again = _anywhere(known)
        kinds: dict[str, PersonalKind] = {_folded(one.text): one.kind for found in first for one in found}
        return [
            _apart([*found, *_again(text, again, kinds), *_named(text, parts)])
            for text, found in zip(texts, first, strict=True)
        ]

    def _parts(self, name: str) -> Iterator[str]:
        """The words of a name that stand for it alone, in small letters: no common word, none without a capital."""
        for word in WORD.findall(name):
            bare = _bare(word)
            if len(bare) > 2 and bare[0].isupper() and bare.casefold() not in {*also_words(), *TITLES, *PARTICLES}:
                yield bare.casefold()

    def _find(self, text: str) -> list[Found]:
        found = [
            Found(kind, start, end, text[start:end])
            for kind, recogniser in _recognisers().items() if kind in self._kinds
            for start, end, score in recogniser(text) if score >= SURE
        ]  # fmt: skip
        if "person" in self._kinds:
            found += [Found("person", start, end, text[start:end]) for start, end in self._people(text)]
        return _apart(found)

    def _people(self, text: str) -> Iterator[tuple[int, int]]:
        """Where names stand: those of the user, of the model, after titles, by lists."""
        if self._names:
            yield from (one.span() for one in self._names.finditer(text))
        if self._model is not None:
            yield from ((one.start_char, one.end_char) for one in self._model(text).ents if one.label_ == "PERSON")
        words = list(WORD.finditer(text))
        for place, word in enumerate(words):
            run = _run(text, words, place)
            count = self._length([_bare(one[0]) for one in run])
            if count:
                yield word.start(), run[count - 1].start() + len(_bare(run[count - 1][0]))
            elif word[0].casefold() in TITLES and word[0][0].isupper() and len(run) > 1:
                last = run[min(len(run), 4) - 1]
                yield run[1].start(), last.start() + len(_bare(last[0]))

    def _length(self, run: Sequence[str]) -> int:
        """Words from the first of a run that are one name by the lists; 0 for none."""
        if run[0].casefold() not in self._given or not run[0][0].isupper():
            return 0
        for count in range(min(len(run), 4), 1, -1):
            middle = all(self._middle(word) for word in run[1 : count - 1])
            if middle and run[count - 1].casefold() in self._family and run[count - 1][0].isupper():
                return count
        return int(run[0].casefold() in self._alone)

    def _middle(self, word: str) -> bool:
        return len(word) == 1 or word in PARTICLES or word.casefold() in self._given | self._family


def _run(text: str, words: Sequence[re.Match[str]], place: int) -> list[re.Match[str]]:
    """Words from this one that could be one name: with capitals or particles, only spaces between them."""
    run = [words[place]]
    for word in words[place + 1 : place + 5]:
        between = text[run[-1].end() : word.start()]
        short = len(run[-1][0]) == 1 or run[-1][0].casefold() in TITLES
        wanted = word[0][0].isupper() or word[0] in PARTICLES
        if (
            not BETWEEN.fullmatch(between)
            or ("." in between and not short)
            or not wanted
            or run[-1][0] != _bare(run[-1][0])
        ):
            break
        run.append(word)
    while len(run) > 1 and run[-1][0] in PARTICLES:
        run.pop()
    return run


def _again(text: str, known: re.Pattern[str] | None, kinds: Mapping[str, PersonalKind]) -> Iterator[Found]:
    """Where a text holds what is known already."""
    for one in known.finditer(text) if known else ():
        yield Found(kinds[_folded(one[0])], *one.span(), one[0])


def _named(text: str, parts: Collection[str]) -> Iterator[Found]:
    """Where parts of names stand alone."""
    for one in WORD.finditer(text):
        bare = _bare(one[0])
        if bare[0].isupper() and bare.casefold() in parts:
            yield Found("person", one.start(), one.start() + len(bare), bare)


def _bare(word: str) -> str:
    """A word without the ending that says whose."""
    return re.sub(r"['’]s?$", "", word)


def _anywhere(names: Iterable[str]) -> re.Pattern[str] | None:
    """Finds these strings as whole words, longest first, whatever the letter case and the spaces in them."""
    told = sorted({_folded(name) for name in names} - {""}, key=lambda one: (-len(one), one))
    if not told:
        return None
    spaced = (r"\s+".join(re.escape(part) for part in name.split(" ")) for name in told)
    return re.compile(rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)", re.IGNORECASE)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _apart(found: Sequence[Found]) -> list[Found]:
    """In order and without overlap: of those that overlap the longer stays, of equally long ones the first."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (one.start - one.end, KINDS.index(one.kind), one.start)):
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)


def _spacy(model: str) -> Any:
    try:
        import spacy
    except ImportError as problem:
        raise _missing("spacy") from problem
    try:
        return spacy.load(model)
    except (OSError, ImportError, ValueError) as problem:
        raise UsageError(
            f"The spaCy model {model!r} cannot be loaded ({problem}).",
            "Give the folder of a model or the name of an installed one; nothing is downloaded.",
        ) from problem


def _missing(library: str) -> MissingExtra:
    return MissingExtra(f"Personal data are found with {library}, which is not installed.", "pip install 'vlmend[pii]'")
