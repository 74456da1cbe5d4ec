"""Where earlier images come from: a PACS by C-FIND with C-MOVE or C-GET, an archive by QIDO-RS and WADO-RS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cds_service.listening import pacs_tls, rules
from cds_service.node import Node
from cds_service.watermarks import Watermarks
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.settings import Archive, PacsDestination

if TYPE_CHECKING:
    from dicom_listener.asking import PacsAddress
    from dicom_listener.dicomweb_query import DicomwebArchive
    from dicom_listener.handlers import StoreHandler
    from dicom_listener.query import Found, Match, SameIssuer, Wanted


class Source(Protocol):
    """Something that can be asked for a patient's photographs. Both raise `DestinationUnavailable` and `Rejected`."""

    def find(self, wanted: Wanted, same: SameIssuer) -> Found:
        """What it has of the patient."""
        ...

    def bring(self, matches: Sequence[Match], patient: PatientIdentity, *, store_only: bool) -> None:
        """Have ``matches`` taken in through the door that checks whose they are."""
        ...


def open_source(node: Node, name: str) -> Source:
    """The source of this name; the only one there is where it is empty. Raises `Rejected`, saying which there are."""
    settings = node.settings
    known = settings.sources
    if not known:
        raise Rejected("nothing to pull from: set query = true for a PACS in pacs, or name an archive in archives")
    if not name and len(known) > 1:
        raise Rejected(f"say which one to pull from: {', '.join(known)}")
    name = name or known[0]
    for pacs in settings.pacs:
        if pacs.query and pacs.name == name:
            return PacsSource(node, pacs)
    for archive in settings.archives:
        if archive.name == name:
            return ArchiveSource(node, archive)
    raise Rejected(f"nothing can be pulled from {name!r}: known are {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class PacsSource:
    """A PACS that is asked by DIMSE."""

    node: Node
    pacs: PacsDestination

    def find(self, wanted: Wanted, same: SameIssuer) -> Found:
        """As `Source.find`."""
        from dicom_listener.query import find

        return find(pacs_address(self.node, self.pacs), wanted, same)

    def bring(self, matches: Sequence[Match], patient: PatientIdentity, *, store_only: bool) -> None:
        """As `Source.bring`; by C-MOVE the door is that of our listener, which must run and be known to the PACS."""
        from dicom_listener.asked import message_id
        from dicom_listener.retrieve import get, move

        settings = self.node.settings
        address = pacs_address(self.node, self.pacs)
        if self.pacs.retrieve == "get":
            limit = settings.dicom_max_object_bytes
            get(address, matches, door=door(self.node, patient, "cget", store_only=store_only), max_object_bytes=limit)
            return
        move(
            address,
            matches,
            destination=self.pacs.move_destination or settings.ae_title,
            message_id=message_id(patient, store_only=store_only),
        )


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """An archive that is asked by DICOMweb."""

    node: Node
    archive: Archive

    def find(self, wanted: Wanted, same: SameIssuer) -> Found:
        """As `Source.find`."""
        return archive_of(self.archive, self.node.settings.dicom_max_object_bytes).find(wanted, same)

    def bring(self, matches: Sequence[Match], patient: PatientIdentity, *, store_only: bool) -> None:
        """As `Source.bring`."""
        opened = archive_of(self.archive, self.node.settings.dicom_max_object_bytes)
        opened.fetch(matches, door=door(self.node, patient, "wado", store_only=store_only))


def pacs_address(node: Node, pacs: PacsDestination) -> PacsAddress:
    """Where a PACS is, with its TLS. Raises `Misconfigured`."""
    from dicom_listener.asking import PacsAddress

    settings = node.settings
    return PacsAddress(
        pacs.name, pacs.host, pacs.port, pacs.ae_title, settings.ae_title, pacs_tls(settings, pacs),
        max_pdu=settings.dicom_max_pdu,
    )  # fmt: skip


def archive_of(archive: Archive, max_object_bytes: int) -> DicomwebArchive:
    """An archive that can be asked. Raises `Misconfigured`."""
    from dicom_listener.dicomweb_query import DicomwebArchive

    return DicomwebArchive(
        archive.name,
        archive.base_url,
        token=archive.token,
        username=archive.username,
        password=archive.password,
        authorities=archive.tls_ca,
        timeout=archive.timeout_seconds,
        max_object_bytes=max_object_bytes,
    )


def door(node: Node, patient: PatientIdentity, source: str, *, store_only: bool) -> StoreHandler:
    """What fetched objects go through: as a C-STORE goes, and only those of ``patient`` (canonical) pass."""
    from dicom_listener.asked import admit_fetched
    from dicom_listener.handlers import StoreHandler

    admit = admit_fetched(patient, node.issuers.canonical, store_only=store_only)
    return StoreHandler(
        accept=lambda data, header, caller, route: node.intake.accept(
            data, header, source=source, caller=caller, route=route
        ),
        on_rejected=lambda error, header, caller, digest: node.intake.reject(
            error, digest=digest, source=source, caller=caller, header=header
        ),
        ready=Watermarks(node.settings, node.engine).check,
        rules=rules(node.settings),
        asked=lambda _, header, route: admit(header, route),
    )
