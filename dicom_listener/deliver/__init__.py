"""Ways to send DICOM results out. `DESTINATIONS` is the one list: transport name → class that does it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dicom_listener.deliver.cstore import CStoreDestination
from dicom_listener.deliver.stow import StowDestination

DESTINATIONS: Mapping[str, type[CStoreDestination] | type[StowDestination]] = MappingProxyType(
    {"cstore": CStoreDestination, "stow": StowDestination}
)

__all__ = ["DESTINATIONS", "CStoreDestination", "StowDestination"]
