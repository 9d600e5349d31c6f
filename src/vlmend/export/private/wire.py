"""Frames over a socket: eight bytes of length, then as many bytes, counted on both sides."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vlmend.errors import EnvironmentProblem

__all__ = ["LARGEST", "Line", "packed", "unpacked"]

LENGTH = struct.Struct(">Q")

LARGEST = 256 * 2**20
"""Bytes of one frame: keys of the size used here have 19 MB."""


@dataclass(eq=False)
class Line:
    """One end of a connection, and the bytes that went by."""

    socket: socket.socket
    sent: int = 0
    received: int = 0

    def send(self, content: bytes) -> None:
        """A frame."""
        self.socket.sendall(LENGTH.pack(len(content)) + content)
        self.sent += LENGTH.size + len(content)

    def receive(self) -> bytes:
        """The next frame; empty where the other end has closed.

        Raises:
            EnvironmentProblem: It was cut off, or is larger than anything that is sent here.
        """
        head = self._read(LENGTH.size)
        if not head:
            return b""
        (size,) = LENGTH.unpack(head)
        if size > LARGEST:
            raise EnvironmentProblem(
                f"The other end announces {size} bytes; nothing here is so large.", "Is it vlmend that listens there?"
            )
        content = self._read(size)
        self.received += LENGTH.size + size
        return content

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self.socket.recv(min(missing, 2**20))
            if not part and not parts:
                return b""
            if not part:
                raise EnvironmentProblem("The other end closed in the middle of a message.", "See what it says there.")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def packed(parts: Sequence[bytes]) -> bytes:
    """Several pieces as one."""
    return b"".join(LENGTH.pack(len(part)) + part for part in parts)


def unpacked(content: bytes) -> list[bytes]:
    """The pieces of `packed`.

    Raises:
        EnvironmentProblem: They do not fill the whole.
    """
    parts: list[bytes] = []
    place = 0
    while place < len(content):
        (size,) = LENGTH.unpack_from(content, place) if len(content) - place >= LENGTH.size else (len(content),)
        parts.append(content[place + LENGTH.size : place + LENGTH.size + size])
        place += LENGTH.size + size
    if place != len(content):
        raise EnvironmentProblem("A message does not hold what it announces.", "Is it vlmend that listens there?")
    return parts
