"""From a model and its mends to an address that answers."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from vlmend.cluster import LOCAL
from vlmend.core.mend import Mend
from vlmend.core.targets import Target
from vlmend.errors import RunProblem
from vlmend.serving.jobs import Engine
from vlmend.serving.logs import Log, logger
from vlmend.serving.pictures import Pictures
from vlmend.serving.pool import Pool
from vlmend.serving.proof import Served, Shown
from vlmend.serving.replicas import Opening, RayFleet
from vlmend.serving.settings import Scale, Settings
from vlmend.serving.views import BASE, views_of
from vlmend.serving.worker import Worker

__all__ = ["BASE", "Opening", "serve", "serve_on_ray", "server_config", "service_of", "service_on", "views_of"]

USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)
"""Linux: how long what was sent may wait for a client that does not read."""


def service_of(served: Mapping[str, Served], settings: Settings) -> Any:
    """The service of some views; its worker runs until it is closed.

    Raises:
        UsageError, MissingExtra: As `Settings.check`.
    """
    settings.check()
    return service_on(Worker(served, settings.limits.held), [one.shown for one in served.values()], settings)


def service_on(engine: Engine, shown: Iterable[Shown], settings: Settings) -> Any:
    """The service of whatever answers; settings are checked before."""
    from vlmend.serving.app import Service

    pictures = Pictures(settings.limits, settings.remote_images)
    hosts = ("127.0.0.1", "localhost", "[::1]", settings.host) if not settings.keys else ("*",)
    names = {one.name: one for one in shown}
    return Service(names, engine, settings.limits, settings.keys, hosts, pictures, Log(settings.log_words))


def serve(
    model: Target, mends: Mapping[str, Mend] = {}, settings: Settings = Settings(),
    ready: Callable[[str, Sequence[str]], None] = lambda address, names: None,
) -> None:  # fmt: skip
    """Answer OpenAI's clients until Ctrl-C or SIGTERM.

    Args:
        model: What answers, as `open_target` gives it.
        mends: By the name under which they are asked for: `base+NAME`.
        settings: Where, for whom and how much.
        ready: Called with the address and the models' names once it can be asked.

    Raises:
        UsageError, NeedsAccess, MendMismatch, ModelProblem: As `views_of`.
        MissingExtra: As `Settings.check`.
        RunProblem: The address cannot be listened on.
    """
    settings.check()
    _run(service_of(views_of(model, mends, base=settings.base), settings), settings, ready)


def serve_on_ray(
    opening: Opening, settings: Settings = Settings(), scale: Scale | None = None, address: str = LOCAL,
    ready: Callable[[str, Sequence[str]], None] = lambda address, names: None,
) -> None:  # fmt: skip
    """Answer OpenAI's clients by replicas of a model on a Ray cluster; this process loads none.

    Args:
        opening: How a replica comes to the model and its mends.
        settings: Where, for whom and how much, all replicas together.
        scale: How many replicas; one for each GPU unless given, or for each host where there are none.
        address: `local`, or that of a cluster to which this host belongs (`auto`, `HOST:6379`).
        ready: Called with the address and the models' names once it can be asked.

    Raises:
        UsageError, NeedsAccess, MendMismatch, ModelProblem: As `views_of`.
        MissingExtra: As `Settings.check`, or Ray is not installed.
        RunProblem: The address cannot be listened on, no cluster answers, or it has no room.
    """
    settings.check()
    fleet = RayFleet(opening, settings.limits, scale, address)
    _run(service_on(Pool(fleet, settings.limits.held), fleet.shown, settings), settings, ready)


def _run(service: Any, settings: Settings, ready: Callable[[str, Sequence[str]], None]) -> None:
    """Listen, answer, and end what answers."""
    import uvicorn

    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with _listening(settings) as held:
            port = held.getsockname()[1]
            ready(f"http://{settings.host}:{port}/v1", [*service.served])
            uvicorn.Server(server_config(service)).run(sockets=[held])
    except KeyboardInterrupt:
        return
    finally:
        service.worker.close()
        logger.removeHandler(handler)


def server_config(service: Any) -> Any:
    """uvicorn's settings for a service: no access log, no headers that say what runs, slow headers cut off."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from vlmend.serving.app import serving_app

    class Patient(H11Protocol):
        """Closes a connection whose first request does not come in time."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._late = asyncio.get_running_loop().call_later(service.limits.header_s, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._late.cancel()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            if cast("object | None", self.cycle) is None and not self.transport.is_closing():
                self.transport.abort()

    return uvicorn.Config(
        serving_app(service), port=0, http=Patient, ws="none", lifespan="off", log_level="error", access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=service.limits.connections,
        timeout_graceful_shutdown=10, h11_max_incomplete_event_size=65_536,
        headers=[("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")],
    )  # fmt: skip


def _listening(settings: Settings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if USER_TIMEOUT is not None:
            held.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, round(settings.limits.body_s * 1000))
        held.bind((settings.host, settings.port))
        held.listen(settings.limits.connections)
    except (OSError, OverflowError) as problem:
        raise RunProblem(
            f"{settings.host} port {settings.port} cannot be listened on ({problem}).",
            "Choose another --port; 0 finds one.",
        ) from problem
    return held
