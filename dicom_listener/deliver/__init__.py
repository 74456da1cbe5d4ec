"""Ways to send DICOM results out. `DESTINATIONS` is the one list: transport name → class that does it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dicom_listener.deliver.cstore import CStoreDestination

DESTINATIONS: Mapping[str, type[CStoreDestination]] = MappingProxyType({"cstore": CStoreDestination})

__all__ = ["DESTINATIONS", "CStoreDestination"]
