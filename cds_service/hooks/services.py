"""The one list of CDS services: to add one, write its module and name it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cds_service.hooks import triage
from cds_service.hooks.messages import Card, HookRequest, ServiceDescription
from cds_service.node import Node


@dataclass(frozen=True, slots=True)
class Service:
    """What discovery says of a service, and what answers its calls."""

    description: ServiceDescription
    answer: Callable[[Node, HookRequest], list[Card]]


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
                    "The patient's identifiers must include the one under which the images were taken; without the "
                    "prefetched patient the answer is 412."
                ),
            ),
            triage.answer,
        ),
    }
)
