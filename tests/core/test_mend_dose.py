"""Of a card's dose reports and the verb `mend` show what stands at sites, and not counts or bytes."""

from __future__ import annotations

from vlmend.core.mend import at_sites
from vlmend.core.sites import Site


def test_norms_at_sites_are_told_apart_from_counts() -> None:
    site = str(Site("language", 3))
    assert at_sites({site: 0.5, "bytes": 3e6, "smallest_client": 2.0}) == {site: 0.5}
