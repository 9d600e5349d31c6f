"""Shapes are checked in tests only; the phantom is put together once."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers, two cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from checking import check

check(*(f"vlmend.{name}" for name in ("core", "models", "methods", "testing", "training", "export")))

from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

from browsing import started_browser  # noqa: E402
from vlmend.models.vlm import VLM  # noqa: E402
from vlmend.testing import tiny_vlm  # noqa: E402


@pytest.fixture(scope="session")
def tiny() -> VLM:
    return tiny_vlm(seed=0)


@pytest.fixture(scope="module")  # while it is open, its thread can run no other event loop
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started
