"""What a CDS service is given beside the request itself, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cds_service.api.uploads import ReadObject
from cds_service.authorization import Caller
from cds_service.hooks.messages import Card, HookRequest
from cds_service.hooks.standing import Records
from cds_service.node import Node
from dermoscopy.domain import PatientIdentity
from dermoscopy.ports import JsonValue
from fhir_adapters.fetch import EhrReader


@dataclass(frozen=True, slots=True)
class Call:
    """One call: open resources, who called, the reader for what the call did not bring, and what tells images apart."""

    node: Node
    caller: Caller
    ehr: EhrReader
    read: ReadObject


@dataclass(frozen=True, slots=True)
class Chart:
    """The patient of a call."""

    identities: tuple[PatientIdentity, ...]
    """Issuer and id under which images may stand here."""
    fetched: bool
    """Whether the patient had to be read from the EHR."""


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What became of the images in the chart during one call."""

    waiting: tuple[str, ...] = ()
    """Analyses that were started."""
    refused: tuple[tuple[str, str], ...] = ()
    """(key, reason) of images that were fetched and are none that can be analysed."""
    unfetched: tuple[tuple[str, str], ...] = ()
    """(key, reason) of images that could not be had in time; the next call tries again."""
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    """For the audit log."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that a service answers from."""

    service: str
    request: HookRequest
    records: Records
    images: TakenIn
    public_url: str


@dataclass(frozen=True, slots=True)
class Told:
    """One card, and what it stands for."""

    card: Card
    key: str
    """What it says, and of what in which state: the same key is not told twice."""
    analysis_id: str = ""
    always: bool = False
    """It tells how far work is, not a finding: shown at every call."""
    alone: bool = False
    """Remembered by itself: that another service showed the same finding does not silence it."""
