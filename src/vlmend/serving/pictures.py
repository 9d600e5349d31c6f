"""Pictures of requests: from data URLs, and from the network only where the server was told so.

A remote address is looked up once and every address behind it must be public; the connection then goes to the very
address that was checked, without redirects, so that neither a second look-up nor a redirect leads into a private net.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass

import httpx

from vlmend.core.images import Image
from vlmend.core.picture_files import opened
from vlmend.errors import BadImage
from vlmend.serving.limits import Limits

__all__ = ["Pictures", "public_address"]

REMOTE_S = 10.0
"""Longest wait for a remote picture."""


@dataclass(frozen=True)
class Pictures:
    """Reads pictures within the limits.

    Attributes:
        limits: Of a server.
        remote: Whether http(s) addresses are fetched.
    """

    limits: Limits
    remote: bool = False

    def of(self, url: str, name: str) -> Image:
        """A picture from its address, decoded once so that a broken one never reaches a batch.

        Raises:
            BadImage: It cannot be read, is too large, or is not to be fetched.
        """
        scheme = url[:8].partition(":")[0].lower()
        if scheme == "data":
            image = Image.from_data_uri(url, name)
        elif scheme in ("http", "https") and self.remote:
            image = Image(self._fetched(url, name), name)
        else:
            raise BadImage(
                f"{name}: only data URLs are read here.",
                "Send data:image/png;base64,... Whoever runs the server can allow others with --remote-images.",
            )
        self._check_pixels(image)
        image.decode()
        return image

    def _check_pixels(self, image: Image) -> None:
        with opened(image.content, image.name) as picture:
            width, height = picture.size
        if width * height > self.limits.pixels:
            raise BadImage(
                f"{image.name}: it has {width}x{height} pixels, more than {self.limits.pixels:,}.", "Make it smaller."
            )

    def _fetched(self, url: str, name: str) -> bytes:
        """The bytes behind a public address."""
        try:
            asked = httpx.URL(url)
            if asked.userinfo or not asked.host:
                raise BadImage(f"{name}: this address cannot be asked.", "Write https://host/path, without a user.")
            pinned = asked.copy_with(host=public_address(asked.host, asked.port or 443))
            return self._streamed(pinned, {"Host": asked.netloc.decode()}, asked.host, name)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as problem:
            raise BadImage(
                f"{name}: it could not be fetched ({type(problem).__name__}).", "Send it as a data URL."
            ) from problem

    def _streamed(self, url: httpx.URL, headers: dict[str, str], host: str, name: str) -> bytes:
        content, until = bytearray(), time.monotonic() + REMOTE_S
        with (
            httpx.Client(timeout=REMOTE_S, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", url, headers=headers, extensions={"sni_hostname": host}) as answered,
        ):
            if answered.status_code != 200:
                raise BadImage(f"{name}: its address answers {answered.status_code}.", "Send it as a data URL.")
            for piece in answered.iter_raw():
                content += piece
                if len(content) > self.limits.body_bytes or time.monotonic() > until:
                    raise BadImage(f"{name}: it is too large, or comes too slowly.", "Send it smaller, as a data URL.")
        return bytes(content)


def public_address(host: str, port: int) -> str:
    """One address of a host, all of which are public.

    Raises:
        ValueError: One is private, of this machine, or otherwise not of the public net.
        OSError: The host is not known.
    """
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    for address in found:
        plain = ipaddress.ip_address(address.partition("%")[0])
        inner = getattr(plain, "ipv4_mapped", None) or getattr(plain, "sixtofour", None) or plain
        if not (plain.is_global and inner.is_global) or plain.is_multicast:
            raise ValueError(f"{address} is no public address")
    return sorted(found)[0]
