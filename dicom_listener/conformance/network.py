"""Network details: association parameters, and each Application Entity's presentation contexts (PS3.2 N.7.1, N.7.2)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Final

from dicom_listener.admission import APPLICATION_CONTEXT
from dicom_listener.asking import PacsAddress
from dicom_listener.conformance.deployment import Context, Contexts, Deployment
from dicom_listener.conformance.document import Section, Table, rows
from dicom_listener.conformance.overview import FETCHER, RECEIVER, SENDER
from dicom_listener.conformance.statuses import status_codes
from dicom_listener.deliver import CStoreDestination
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.scp import OVERSHOOT
from dicom_listener.server import MAX_WAITING, MAX_WAITING_PER_ADDRESS

_COLUMNS: Final = ("Abstract Syntax", "UID", "Transfer Syntax Set", "Role", "Extended negotiation")


def network(deployment: Deployment, contexts: Contexts) -> Section:
    """N.7."""
    return Section(
        "7",
        "Network and media communication details",
        sections=(
            Section("7.1", "General association parameters", (_parameters(deployment),)),
            Section(
                "7.2",
                "Specifications",
                sections=(
                    _receiver(deployment, contexts),
                    _sender(deployment, contexts),
                    _fetcher(deployment, contexts),
                ),
            ),
            status_codes(deployment),
        ),
    )


def _parameters(deployment: Deployment) -> Table:
    listener = deployment.listener
    asking = PacsAddress("", "", 0, "", "")
    table = (
        ("Application Context Name", APPLICATION_CONTEXT),
        ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
        ("Maximum PDU size, as acceptor", f"{listener.max_pdu} bytes"),
        ("Maximum PDU size, as initiator of questions", f"{asking.max_pdu} bytes"),
        ("Maximum PDU size, as initiator of deliveries", f"{_default('max_pdu'):.0f} bytes"),
        ("Associations at a time, as acceptor", f"{listener.max_associations} in each of {_processes(deployment)}"),
        ("Associations at a time, as initiator", "one per PACS and worker process for results; one per question"),
        ("Asynchronous operations window", "not negotiated: one operation at a time"),
        ("SOP Class Extended and Common Extended Negotiation", "not used; what is proposed is ignored"),
        ("User Identity Negotiation", "not used; what is proposed is ignored"),
        ("Time for an association request, and for silence inside a PDU", f"{listener.negotiation_timeout:g} s"),
        ("Silence after which an association ends", f"{listener.idle_timeout:g} s"),
        ("Time for an answer, as initiator of questions", f"{asking.timeout:g} s"),
        ("Time for an answer, as initiator of deliveries", f"{_default('timeout'):g} s"),
        ("IPv4 and IPv6", "either, by `dicom_host`"),
    )
    return Table("association-parameters", "Association parameters", ("Parameter", "Value"), rows(table))


def _default(name: str) -> float:
    """What a destination is opened with: no setting changes it."""
    return float(inspect.signature(CStoreDestination).parameters[name].default)


def _processes(deployment: Deployment) -> str:
    count = deployment.settings.dicom_processes
    return f"{count} process" + ("es" if count != 1 else "")


def _receiver(deployment: Deployment, contexts: Contexts) -> Section:
    listener = deployment.listener
    called = (
        f"The called AE title must be `{listener.ae_title}`."
        if listener.require_called_ae
        else "Any called AE title is accepted."
    )
    if not listener.peers:
        calling = "Any calling AE title is accepted, from the addresses that reach the port."
    elif listener.promiscuous:
        calling = "Any calling AE title is accepted; for those of 6.2 their addresses and limits hold."
    else:
        calling = "Only the calling AE titles of 6.2 are accepted, from their addresses."
    return Section(
        "7.2.1",
        RECEIVER,
        (
            f"Accepts associations only. {called} {calling} Not more than {MAX_WAITING} connections, and "
            f"{MAX_WAITING_PER_ADDRESS} from one address, may be open that have not asked for an association yet. A "
            f"sender that is slower than {listener.lowest_rate:g} bytes per second, breaks the protocol or sends "
            f"{OVERSHOOT} bytes more than an object may have is aborted. When the service stops, operations in hand "
            "are finished.",
            "Of several transfer syntaxes in one proposed context the first of its set is chosen that was proposed: "
            "what costs no decoding, then lossless, then lossy.",
            _contexts("accepted-contexts", "Accepted presentation contexts", contexts.accepted),
        ),
    )


def _sender(deployment: Deployment, contexts: Contexts) -> Section:
    return Section(
        "7.2.2",
        SENDER,
        (
            f"Initiates associations as `{deployment.settings.ae_title}` when a result is due. One is kept open "
            f"between objects and released after {_default('idle_seconds'):g} s without one. An abstract "
            "syntax in a context for each compressed "
            "transfer syntax lets the PACS accept each by itself.",
            _contexts("storage-contexts", "Proposed for storage and verification", contexts.stored),
            _contexts("commitment-contexts", "Proposed to ask for storage commitment", contexts.committed),
            _contexts(
                "report-contexts",
                "Proposed to report storage commitment",
                [Context(one.uid, one.sets, scu=False, scp=True) for one in contexts.committed],
            ),
        ),
    )


def _fetcher(deployment: Deployment, contexts: Contexts) -> Section:
    titles = {pacs.move_destination or deployment.settings.ae_title for pacs in deployment.settings.pacs if pacs.query}
    moved = ", ".join(f"`{title}`" for title in sorted(titles)) or f"`{deployment.settings.ae_title}`"
    return Section(
        "7.2.3",
        FETCHER,
        (
            "Initiates an association for each question and releases it afterwards. C-MOVE names "
            f"{moved} as the destination, which the PACS must know with the address and port of the {RECEIVER}; "
            "C-GET takes the images on the same association, by role selection.",
            _contexts("find-contexts", "Proposed for C-FIND", contexts.found),
            _contexts("move-contexts", "Proposed for C-MOVE", contexts.moved),
            _contexts("get-contexts", "Proposed for C-GET", contexts.got),
        ),
    )


def _contexts(key: str, title: str, contexts: Iterable[Context]) -> Table:
    table = []
    for one in contexts:
        role = "SCU and SCP" if one.scu and one.scp else "SCU" if one.scu else "SCP"
        selected = key.startswith(("report", "get")) and one.scp and not one.scu
        negotiated = "role selection (SCP)" if selected else "role selection" if one.scu and one.scp else "none"
        table.append((one.name, one.uid, one.sets, role, negotiated))
    return Table(key, title, _COLUMNS, rows(table))
