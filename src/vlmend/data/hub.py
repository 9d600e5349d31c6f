"""Files of a data set from the Hugging Face hub: the one place that asks for them.

What the files mean is the adapters'; what the hub answers when it refuses becomes one error here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlmend.errors import EnvironmentProblem

__all__ = ["Fetch", "HubFiles", "fetch_snapshot", "from_hub"]


@dataclass(frozen=True)
class HubFiles:
    """Files of one data set on the hub.

    Attributes:
        id: The data set's name there.
        files: Names or glob patterns of the files that are needed; nothing else is fetched.
        gated: The hub hands it out only to those who accepted its terms.
    """

    id: str
    files: tuple[str, ...]
    gated: bool = False


Fetch = Callable[[HubFiles], Path]
"""Gets the files and gives the folder they lie in."""


def fetch_snapshot(hub: HubFiles) -> Path:
    """Fetch through `huggingface_hub`, whose cache is asked first."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(hub.id, repo_type="dataset", allow_patterns=list(hub.files)))


def from_hub(hub: HubFiles, how: str, fetch: Fetch = fetch_snapshot) -> Path:
    """The folder that holds the files.

    Args:
        how: How to get the set by hand, for the error.

    Raises:
        EnvironmentProblem: The hub is out of reach, does not have the set, or wants its terms accepted.
    """
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    page = f"https://huggingface.co/datasets/{hub.id}"
    try:
        folder = fetch(hub)
    except GatedRepoError as problem:
        raise EnvironmentProblem(
            f"The hub holds {hub.id} back until its terms are accepted.",
            f"Accept them at {page}, set HF_TOKEN or run `hf auth login`, and try again. Or: {how}",
        ) from problem
    except RepositoryNotFoundError as problem:
        raise EnvironmentProblem(
            f"The hub has no data set {hub.id} for you.", f"It may have moved or ask for a login ({page}). Or: {how}"
        ) from problem
    except (HfHubHTTPError, OSError, ValueError) as problem:
        raise EnvironmentProblem(
            f"{hub.id} cannot be fetched from the hub ({type(problem).__name__}).",
            f"Check the network and HF_HUB_OFFLINE, or bring the files. {how}",
        ) from problem
    if not any(any(folder.glob(pattern)) for pattern in hub.files):
        raise EnvironmentProblem(
            f"{hub.id} no longer has the files {', '.join(hub.files)}.", f"Look at {page} for where they went. {how}"
        )
    return folder
