"""A relay: clients connect here, and the backend sees one connection for all that watch the same.

``Hub.relay(RelayConfig(...))`` adds one to a hub; ``fanwire serve`` runs them from a file.
"""

from fanwire.relay.config import CallShare, Everyone, Lanes, MessageShare, Private, QueryShare, RelayConfig
from fanwire.relay.stats import LaneStats, RelayStats

__all__ = [
    "CallShare",
    "Everyone",
    "LaneStats",
    "Lanes",
    "MessageShare",
    "Private",
    "QueryShare",
    "RelayConfig",
    "RelayStats",
]
