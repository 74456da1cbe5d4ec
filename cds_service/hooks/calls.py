"""What a CDS service is given beside the request itself."""

from __future__ import annotations

from dataclasses import dataclass

from cds_service.authorization import Caller
from cds_service.node import Node
from fhir_adapters.fetch import EhrReader


@dataclass(frozen=True, slots=True)
class Call:
    """One call: open resources, who called, and the reader for what the call did not bring."""

    node: Node
    caller: Caller
    ehr: EhrReader
