"""Which addresses may be asked: base URLs in one comparable form, and names that lead inward (SSRF).

An address in a call comes from the caller; only what the settings list is ever connected to, and a listed name that
resolves to a private or loopback address is refused unless its entry says otherwise.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from dermoscopy.settings import is_loopback

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def normal_base(url: str) -> str:
    """A FHIR base URL in the one form in which two can be compared; empty for what can be none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.query or parts.fragment:
        return ""
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{shown}" + (f":{port}" if port not in (None, default) else "") + parts.path.rstrip("/")


def is_inward(address: str) -> bool:
    """Whether an IP address is anything but a public one, also behind an IPv6 form of an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return not inner.is_global
    return not ip.is_global or ip.is_multicast


def written_inward(base: str) -> bool:
    """Whether the settings themselves write an address (or localhost): then it is meant."""
    host = urlsplit(base).hostname or ""
    if is_loopback(host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
