"""What the door asks of the sites: the one interface between what listens and what keeps containers awake.

In front: connections, requests, headers, waiting pages. Behind: keepers, containers, the ledger. Neither knows more of
the other than this.
"""

from __future__ import annotations

from typing import Protocol

from scheduler.sites.site import Site, SitePhase, SiteView


class Sites(Protocol):
    """All sites of the cluster, as a door sees them. Every method raises from the tree of node.errors alone."""

    async def want(self, site: Site, wait_s: float) -> SiteView:
        """Create a site or change it, and wake it, at its keeper; idempotent, from any node.

        Return as soon as it is AWAKE (its address takes connections), BROKEN, hopeless or failing, else its view at the
        end of `wait_s`.
        """
        ...

    async def wake(self, key: str, wait_s: float) -> SiteView:
        """Do the same for a site that is known already; UnknownSite."""
        ...

    async def find(self, host: str) -> tuple[SiteView, ...]:
        """Return every site that answers for a host name, whoever keeps it; from memory for a short while."""
        ...

    def remembered(self, key: str) -> SitePhase | None:
        """Return the phase of a site by what is remembered here, None if nothing is."""
        ...

    def began(self, key: str, keeper: str) -> None:
        """Count a connection or request for a site, open at this door from now on."""
        ...

    def ended(self, key: str, keeper: str) -> None:
        """Count one less; the site was used last now. Keepers hear of it in batches."""
        ...

    async def unready(self, key: str, keeper: str, why: str) -> SiteView:
        """Tell the keeper that nobody answers at the site's address; return what it is now."""
        ...
