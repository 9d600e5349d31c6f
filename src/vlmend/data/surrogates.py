"""Surrogates: made-up names, addresses and numbers that stand for real ones, the same for the same under one key.

Which one is drawn hangs on HMAC-SHA256 of kind and text under a secret key, so that nobody without the key can try
names out. Where a kind has a range that belongs to nobody, surrogates are from it: example.com (RFC 2606), IP
addresses for documentation (RFC 5737, 3849), 555-01xx, social security numbers of area 666, cards of major industry 9,
IBANs whose check digits are 00.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmend.data.personal import PARTICLES, TITLES, WORD, Gender, NameBank, PersonalKind

__all__ = ["Surrogates"]

DOMAINS = ("example.com", "example.org", "example.net")
NETS = ("192.0.2", "198.51.100", "203.0.113")


@dataclass(frozen=True)
class Surrogates:
    """Made-up stand-ins under one key.

    Attributes:
        key: Secret bytes.
        bank: Names to draw from.
        gender: Of a given name; a surrogate has the same where it is known.
        is_given: Whether a word is a given name.
    """

    key: bytes
    bank: NameBank
    gender: Callable[[str], Gender]
    is_given: Callable[[str], bool]

    def of(self, kind: PersonalKind, text: str, scope: str = "") -> str:
        """The stand-in for a text of this kind: never the text itself.

        Args:
            scope: Other scopes, other stand-ins; empty for one scope everywhere.
        """
        return self._person(text, scope) if kind == "person" else self._number(kind, text, scope)

    # --- people

    def _person(self, text: str, scope: str) -> str:
        return WORD.sub(lambda word: self._word(word[0], scope), text)

    def _word(self, word: str, scope: str) -> str:
        """One word of a name, the same wherever it stands: given names for given ones, family names for the others."""
        if word.casefold() in TITLES or word in PARTICLES:
            return word
        if len(word) == 1:
            return _letter(self._draw("initial", word, scope), word)
        given = self.is_given(word)
        return _cased(self._name(word, scope, self._given(word) if given else self.bank.family, given), word)

    def _given(self, word: str) -> Sequence[str]:
        gender = self.gender(word)
        return {"male": self.bank.male, "female": self.bank.female}.get(gender, (*self.bank.male, *self.bank.female))

    def _name(self, word: str, scope: str, names: Sequence[str], given: bool) -> str:
        draw = self._draw("given" if given else "family", word, scope)
        picked = names[draw % len(names)]
        return names[(draw + 1) % len(names)] if picked.casefold() == word.casefold() else picked

    # --- numbers and addresses

    def _number(self, kind: PersonalKind, text: str, scope: str) -> str:
        draw = self._draw(kind, text, scope)
        match kind:
            case "email":
                return f"{self._mailbox(draw)}{draw // 10**9 % 100:02d}@{DOMAINS[draw // 10**12 % 3]}"
            case "ip":
                return f"2001:db8::{draw % 65536:x}" if ":" in text else f"{NETS[draw % 3]}.{draw // 3 % 254 + 1}"
            case "ssn":
                return _laid(text, f"666{draw % 99 + 1:02d}{draw // 99 % 9999 + 1:04d}")
            case "card":
                return _laid(text, _luhn(f"9{draw % 10 ** (_count(text) - 2):0{_count(text) - 2}d}"))
            case "iban":
                return _iban(text, draw)
            case "phone":
                return _laid(text, _phone(_count(text), text, draw))
            case _:
                return _laid(text, _other(re.sub(r"\D", "", text), draw))

    def _mailbox(self, draw: int) -> str:
        given = (*self.bank.male, *self.bank.female)
        name = f"{given[draw % len(given)]}.{self.bank.family[draw // 10**5 % len(self.bank.family)]}"
        return _ascii(name).lower()

    def _draw(self, kind: str, text: str, scope: str) -> int:
        told = unicodedata.normalize("NFKC", text).casefold()
        told = " ".join(told.split()) if kind in ("given", "family", "initial") else re.sub(r"[\s().-]", "", told)
        words = "\0".join((kind, scope, told)).encode()
        return int.from_bytes(hmac.new(self.key, words, hashlib.sha256).digest(), "big")


def _cased(name: str, like: str) -> str:
    return name.upper() if like.isupper() else name.lower() if like.islower() else name


def _letter(draw: int, like: str) -> str:
    made = chr(ord("A") + draw % 26)
    made = chr(ord("A") + (draw + 1) % 26) if made == like.upper() else made
    return made if like.isupper() else made.lower()


def _ascii(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z.]", "", plain)


def _count(text: str) -> int:
    return sum(one.isdecimal() for one in text)


def _laid(text: str, digits: str) -> str:
    """These digits in the places of the digits of a text."""
    left = iter(digits)
    return re.sub(r"\d", lambda _: next(left), text)


def _other(digits: str, draw: int) -> str:
    made = f"{draw % 10 ** len(digits):0{len(digits)}d}"
    return made if made != digits else f"{(draw + 1) % 10 ** len(digits):0{len(digits)}d}"


def _phone(count: int, text: str, draw: int) -> str:
    """North American numbers end in 555-01xx, which is nobody's; others keep the country and get digits."""
    digits = re.sub(r"\D", "", text)
    if count in (7, 10, 11) and (count != 11 or digits[0] == "1") and not (text.startswith("+") and count != 11):
        area = f"{draw % 8 + 2}{draw // 8 % 100:02d}"
        return {7: "", 10: area, 11: f"1{area}"}[count] + f"55501{draw // 800 % 100:02d}"
    kept = min(2, count) if text.startswith("+") else 1 if digits.startswith("0") else 0
    return digits[:kept] + _other(digits[kept:], draw)


def _luhn(digits: str) -> str:
    """The digits with the check digit that makes them a card's."""
    total = sum(sum(divmod(int(one) * (2 - place % 2), 10)) for place, one in enumerate(reversed(digits)))
    return f"{digits}{-total % 10}"


def _iban(text: str, draw: int) -> str:
    """The country stays; check digits 00 are no account's; digits for digits, letters for letters."""
    made, left, place = "", draw, 0
    for one in text:
        if one.isspace():
            made += one
            continue
        place += 1
        if place <= 2:
            made += one
        elif place <= 4:
            made += "0"
        else:
            left, drawn = divmod(left, 10 if one.isdecimal() else 26)
            made += str(drawn) if one.isdecimal() else chr(ord("A") + drawn)
    return made
