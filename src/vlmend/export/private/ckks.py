"""Scores of an encrypted embedding, by TenSEAL's CKKS (Cheon et al. 2017): the one place where it is imported.

Who holds the pictures makes the keys, encrypts embeddings and decrypts scores. Who holds the head gets the public half,
multiplies with weights in the clear and adds, and never holds the secret key. One multiplication deep: ring degree
8192 with primes of 60, 40 and 60 bits (128-bit security), scale 2^40.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.files import write_file
from vlmend.core.secrets import read_secret
from vlmend.errors import BadData, EnvironmentProblem, MissingExtra
from vlmend.export.private.head import Head

__all__ = ["Keys", "Scorer"]

DEGREE, PRIMES, SCALE = 8192, (60, 40, 60), 2.0**40


@dataclass(frozen=True, eq=False)
class Keys:
    """The client's keys, the secret one among them."""

    context: Any

    @classmethod
    def new(cls) -> Keys:
        """Fresh ones.

        Raises:
            MissingExtra: TenSEAL is not installed.
        """
        tenseal = _tenseal()
        context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(PRIMES))
        context.global_scale = SCALE
        context.generate_galois_keys()
        return cls(context)

    @classmethod
    def at(cls, file: Path) -> Keys:
        """Those of a file that the owner alone may read.

        Raises:
            UsageError: It is not there, or others may read it.
            BadData: It holds no key.
            MissingExtra: TenSEAL is not installed.
        """
        held = read_secret(file, "Leave --key out, and one is made beside the client's half.")
        try:
            context = _tenseal().context_from(held)
            if not context.is_private():
                raise ValueError("its secret part is missing")
            context.generate_galois_keys()
        except (ValueError, RuntimeError) as problem:
            raise BadData(f"{file} is no key of vlmend ({problem}).", "Leave --key out to make one.") from problem
        return cls(context)

    def save(self, file: Path) -> None:
        """Write them for `at`, readable by the owner alone.

        Raises:
            RunProblem: They cannot be written.
        """
        held = self.context.serialize(
            save_public_key=True, save_secret_key=True, save_galois_keys=False, save_relin_keys=False
        )
        write_file(file, held)

    @property
    def public(self) -> bytes:
        """What the server needs to compute with ciphertexts; the secret key is not in it."""
        context = self.context.copy()
        context.make_context_public()
        return context.serialize(save_relin_keys=False)

    def encrypt(self, embedding: Float[Tensor, " width"]) -> bytes:
        """One embedding as a ciphertext."""
        return _tenseal().ckks_vector(self.context, embedding.tolist()).serialize()

    def decrypt(self, scores: list[bytes]) -> Float[Tensor, " class"]:
        """A score of each ciphertext.

        Raises:
            EnvironmentProblem: They are no ciphertexts under these keys.
        """
        try:
            return torch.tensor([_tenseal().ckks_vector_from(self.context, one).decrypt()[0] for one in scores])
        except (ValueError, RuntimeError) as problem:
            raise EnvironmentProblem(
                f"The answer is no ciphertext ({problem}).", "See what the server says."
            ) from problem


class Scorer:
    """The server's side: a head in the clear, and the public half of somebody's keys."""

    def __init__(self, head: Head, public: bytes) -> None:
        """Take the keys in.

        Raises:
            MissingExtra: TenSEAL is not installed.
            BadData: They are no keys, or hold the secret one, which must not leave the client.
        """
        self._tenseal = _tenseal()
        try:
            self.context = self._tenseal.context_from(public)
        except (ValueError, RuntimeError) as problem:
            raise BadData(f"What came is no public key ({problem}).", "Ask with `vlmend score`.") from problem
        if self.context.is_private():
            raise BadData(
                "The client sent its secret key; it was thrown away.", "Ask with `vlmend score`, and with a new key."
            )
        self._rows = [(row.tolist(), [float(bias)]) for row, bias in zip(head.weight, head.bias, strict=True)]
        self._width = head.weight.shape[1]

    def scores(self, embedding: bytes) -> list[bytes]:
        """The encrypted scores of an encrypted embedding, one for each class.

        Raises:
            BadData: It is no ciphertext under these keys, or of another width.
        """
        try:
            asked = self._tenseal.ckks_vector_from(self.context, embedding)
            if asked.size() != self._width:
                raise ValueError(f"it has {asked.size()} numbers, and the head is {self._width} wide")
            return [(asked.dot(row) + bias).serialize() for row, bias in self._rows]
        except (ValueError, RuntimeError) as problem:
            raise BadData(f"What came is no encrypted embedding ({problem}).", "Ask with `vlmend score`.") from problem


def _tenseal() -> Any:
    """The library.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import tenseal
    except ImportError as problem:
        raise MissingExtra(
            "Encrypted scores are computed with TenSEAL, which is not installed.", "pip install 'vlmend[privacy]'"
        ) from problem
    return tenseal
