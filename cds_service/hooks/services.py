"""The one list of CDS services: to add one, write its module and name it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cds_service.hooks import triage
from cds_service.hooks.calls import Call
from cds_service.hooks.messages import Card, HookRequest, ServiceDescription
from dermoscopy.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Service:
    """What discovery says of a service, and what answers its calls."""

    description: ServiceDescription
    answer: Callable[[Call, HookRequest], list[Card]]


SERVICES: Mapping[str, Service] = MappingProxyType(
    {
        triage.ID: Service(
            ServiceDescription(
                hook="patient-view",
                id=triage.ID,
                title="Dermoscopy triage",
                description=(
                    "Shows stored dermoscopy analyses of the patient: lesion class with calibrated probability, "
                    "urgency, measurements and the report. A second opinion for research, not a diagnosis."
                ),
                prefetch={triage.PATIENT_KEY: "Patient/{{context.patientId}}"},
                usage_requirements=(
                    "The patient's identifiers must include the one under which the images were taken. Without the "
                    "prefetched patient it is read from fhirServer; where that cannot be done, the answer is 412."
                ),
            ),
            triage.answer,
        ),
    }
)


def offered(ids: Mapping[str, str]) -> Mapping[str, Service]:
    """The services under the ids of this deployment: ``ids`` (ours → theirs) renames some.

    Raises `Misconfigured` for an id that is none of ours, or that two services would share.
    """
    if unknown := sorted(set(ids) - set(SERVICES)):
        raise Misconfigured(f"hooks_service_ids: there is no service {unknown[0]!r}; there are {', '.join(SERVICES)}")
    found: dict[str, Service] = {}
    for own, service in SERVICES.items():
        name = ids.get(own, own)
        if name in found:
            raise Misconfigured(f"hooks_service_ids: two services cannot have the id {name!r}")
        found[name] = replace(service, description=service.description.model_copy(update={"id": name}))
    return MappingProxyType(found)
