"""The one list of CDS services: to add one, write its module and name it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cds_service.hooks import discharge, orders, triage
from cds_service.hooks.calls import Case, Told
from cds_service.hooks.charts import PATIENT_KEY
from cds_service.hooks.images import TEMPLATES
from cds_service.hooks.messages import ServiceDescription
from dermoscopy.errors import Misconfigured

VERSION = "2.0.0"
"""Of what the services answer, not of CDS Hooks."""
_SECOND_OPINION = "A second opinion for research, not a diagnosis."
_REQUIREMENTS = (
    "The patient's identifiers must include the one under which the images were taken. Without the "
    "prefetched patient it is read from fhirServer; where that cannot be done, the answer is 412. Images in the chart "
    "(media, documents, studies) are optional."
)


@dataclass(frozen=True, slots=True)
class Service:
    """What discovery says of a service, and what answers its calls. ``id`` is our own, whatever it is offered under."""

    id: str
    description: ServiceDescription
    answer: Callable[[Case], list[Told]]


def _service(own_id: str, hook: str, title: str, description: str, answer: Callable[[Case], list[Told]]) -> Service:
    described = ServiceDescription(
        hook=hook,
        id=own_id,
        title=title,
        description=f"{description} {_SECOND_OPINION}",
        prefetch={PATIENT_KEY: "Patient/{{context.patientId}}", **TEMPLATES},
        usage_requirements=_REQUIREMENTS,
        version=VERSION,
    )
    return Service(own_id, described, answer)


SERVICES: Mapping[str, Service] = MappingProxyType(
    {
        service.id: service
        for service in (
            _service(
                triage.ID,
                "patient-view",
                "Dermoscopy triage",
                "Shows stored dermoscopy analyses of the patient: lesion class with calibrated probability, "
                "urgency, measurements and the report.",
                triage.answer,
            ),
            _service(
                orders.SELECT,
                "order-select",
                "Dermoscopy at ordering",
                "Shows the dermoscopy result of the lesion that a referral, biopsy or excision in draft is about, and "
                "suggests urgency, or a referral where a high risk has none.",
                orders.answer,
            ),
            _service(
                orders.SIGN,
                "order-sign",
                "Dermoscopy at signing",
                "Shows the dermoscopy result of the lesion that a referral, biopsy or excision is about before it is "
                "signed, and suggests urgency.",
                orders.answer,
            ),
            _service(
                discharge.ID,
                "encounter-discharge",
                "Dermoscopy at discharge",
                "Shows high-risk dermoscopy results that are still open, and images without a result.",
                discharge.answer,
            ),
        )
    }
)


def offered(ids: Mapping[str, str], *, images: bool = True) -> Mapping[str, Service]:
    """The services under the ids of this deployment: ``ids`` (ours → theirs) renames some.

    Without ``images`` the chart's images are not asked for. Raises `Misconfigured` for an id that is none of ours, or
    that two services would share.
    """
    if unknown := sorted(set(ids) - set(SERVICES)):
        raise Misconfigured(f"hooks_service_ids: there is no service {unknown[0]!r}; there are {', '.join(SERVICES)}")
    found: dict[str, Service] = {}
    for own, service in SERVICES.items():
        name = ids.get(own, own)
        if name in found:
            raise Misconfigured(f"hooks_service_ids: two services cannot have the id {name!r}")
        asked = service.description.prefetch
        prefetch = asked if images else {PATIENT_KEY: asked[PATIENT_KEY]}
        described = service.description.model_copy(update={"id": name, "prefetch": prefetch})
        found[name] = replace(service, description=described)
    return MappingProxyType(found)
