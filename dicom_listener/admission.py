"""Who may open an association, and how much one peer may send: decided here, said by `scp`.

Pure: no sockets, no pynetdicom. A peer is a calling AE title together with the addresses that it may come from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
"""DICOM Application Context Name (PS3.7 A.2.1)."""

_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an A-ASSOCIATE-RJ says (PS3.8 Table 9-21), and why in words. ``result`` 1 is permanent, 2 transient."""

    result: int
    source: int
    diagnostic: int
    reason: str


CALLED_AE_UNKNOWN: Final = Refusal(1, 1, 7, "called AE title is not ours")
CALLING_AE_UNKNOWN: Final = Refusal(1, 1, 3, "calling AE title is not on the list")
ADDRESS_UNKNOWN: Final = Refusal(1, 1, 3, "calling AE title comes from an address that is not listed for it")
CONTEXT_UNKNOWN: Final = Refusal(1, 1, 2, "application context name is not DICOM's")
LIMIT_REACHED: Final = Refusal(2, 3, 2, "as many associations are open as allowed")
PEER_LIMIT_REACHED: Final = Refusal(2, 3, 2, "this AE title has as many associations open as it may")
STOPPING: Final = Refusal(2, 3, 1, "the service is being stopped")


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of the list of senders. No ``networks`` means any address; a limit of 0 is the listener's own."""

    ae_title: str
    networks: tuple[Network, ...] = ()
    max_associations: int = 0
    objects_per_minute: int = 0
    max_object_bytes: int = 0

    def comes_from(self, address: Address) -> bool:
        """Whether the peer may come from ``address``."""
        return not self.networks or any(
            address.version == network.version and address in network for network in self.networks
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: AE titles as in the A-ASSOCIATE-RQ (spaces stripped) and the address of the connection."""

    calling: str
    called: str
    address: str
    application_context: str = APPLICATION_CONTEXT


class Admission:
    """Judges associations and counts objects; safe to use from many threads.

    Without ``peers`` anybody is admitted. ``promiscuous`` also admits AE titles that are on no list.
    """

    def __init__(
        self,
        ae_title: str,
        peers: Iterable[Peer] = (),
        *,
        promiscuous: bool = False,
        require_called_ae: bool = True,
        max_associations: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ae_title = ae_title.strip()
        self._peers = tuple(peers)
        self._promiscuous = promiscuous or not self._peers
        self._require_called_ae = require_called_ae
        self._max_associations = max_associations
        self._clock = clock
        self._lock = threading.Lock()
        self._budgets: dict[str, tuple[float, float]] = {}

    def judge(self, caller: Caller, open_callers: Iterable[str]) -> Refusal | None:
        """Why ``caller`` is refused, or ``None``; ``open_callers``: the calling AE titles of the open associations."""
        if caller.application_context != APPLICATION_CONTEXT:
            return CONTEXT_UNKNOWN
        if self._require_called_ae and caller.called != self._ae_title:
            return CALLED_AE_UNKNOWN
        peer = self.peer(caller.calling, caller.address)
        if peer is None:
            listed = any(known.ae_title == caller.calling for known in self._peers)
            return ADDRESS_UNKNOWN if listed else CALLING_AE_UNKNOWN
        present = list(open_callers)
        if len(present) >= self._max_associations:
            return LIMIT_REACHED
        if peer.max_associations and present.count(caller.calling) >= peer.max_associations:
            return PEER_LIMIT_REACHED
        return None

    def peer(self, calling: str, address: str) -> Peer | None:
        """The first entry for this AE title and address; one without limits for a caller that need not be listed."""
        entries = [peer for peer in self._peers if peer.ae_title == calling]
        if not entries:
            return Peer(calling) if self._promiscuous else None
        came_from = _plain(ip_address(address))
        return next((peer for peer in entries if peer.comes_from(came_from)), None)

    def may_send(self, peer: Peer) -> bool:
        """Whether ``peer`` may send one more object now; counts it. A minute's worth may come at once."""
        if not peer.objects_per_minute:
            return True
        now = self._clock()
        with self._lock:
            left, since = self._budgets.get(peer.ae_title, (float(peer.objects_per_minute), now))
            left = min(peer.objects_per_minute, left + (now - since) * peer.objects_per_minute / _MINUTE)
            allowed = left >= 1
            self._budgets[peer.ae_title] = (left - 1 if allowed else left, now)
        return allowed


def _plain(address: Address) -> Address:
    """An IPv4 address that arrived on an IPv6 socket, as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
