"""A FHIR resource that somebody sent, read with what it refers to, and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cds_service.fhir_servers import outcome_source
from cds_service.node import Node
from cds_service.outcomes import Arrival, Recorded, record
from fhir_adapters.pathology import Passed, Told, read_outcomes


def take_resource(node: Node, resource: Mapping[str, Any], body: bytes, *, caller: str) -> list[Recorded | Passed]:
    """What became of each resource in ``body``, in its order.

    A server that is configured as an outcome server under the caller's name is asked for what the resource refers to;
    nobody else is, since the same reference is another patient elsewhere. Raises `Rejected` (no such resource) and
    `Unavailable`.
    """
    read = read_outcomes(resource)
    base = ""
    if any(isinstance(one, Told) and not one.identifiers for one in read):
        server = next((one for one in node.settings.outcome_servers if one.name == caller), None)
        if server is not None and resource.get("resourceType") != "Bundle":
            source = outcome_source(server)
            try:
                base, more = source.base, source.referred([resource])
            finally:
                source.close()
            read = read_outcomes(resource, more, base)
    arrival = Arrival(origin=caller, way="post", caller=caller)
    return [record(node, one, body, arrival) if isinstance(one, Told) else one for one in read]
