"""The DICOM side of a deployment: settings become admission, TLS and limits; refusals become audit leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cds_service.commitments import record
from cds_service.node import Node
from cds_service.priors import Priors
from cds_service.result_commitments import peer_of, receive
from cds_service.watermarks import Watermarks
from dermoscopy.domain import ImageHeader
from dermoscopy.errors import Misconfigured
from dermoscopy.ports import AuditEntry
from dermoscopy.routing import Route
from dermoscopy.settings import PacsDestination, Settings
from dermoscopy.settings import StowDestination as StowSettings

if TYPE_CHECKING:
    import ssl

    from dicom_listener.admission import Peer
    from dicom_listener.commitment_request import CommitmentRequester
    from dicom_listener.deliver import StowDestination
    from dicom_listener.handlers import StoreRequest
    from dicom_listener.refusals import Refused
    from dicom_listener.rules import Rules
    from dicom_listener.scp import ListenerSettings, StorageListener
    from dicom_listener.tls import ClientContext, ReloadedContext, TlsFiles


def open_listener(node: Node) -> StorageListener:
    """The storage SCP of one process, not yet started. Raises `Misconfigured`."""
    from dicom_listener.scp import StorageListener

    watermarks = Watermarks(node.settings, node.engine)
    priors = Priors(node)

    def accept(data: bytes, header: ImageHeader, caller: str, route: Route) -> None:
        receipt = node.intake.accept(data, header, source="cstore", caller=caller, route=route)
        priors.start(receipt, header)

    return StorageListener(
        listener_settings(node.settings),
        accept=accept,
        on_rejected=lambda error, header, caller, digest: node.intake.reject(
            error, digest=digest, source="cstore", caller=caller, header=header
        ),
        on_refused=lambda refused: _record(node, refused),
        ready=watermarks.check,
        rules=rules(node.settings),
        on_commitment=lambda request: record(node, request),
        on_report=lambda report: receive(node, report),
        asked=lambda request, header, route: _pulled(node, request, header, route),
    )


def _pulled(node: Node, request: StoreRequest, header: ImageHeader, route: Route) -> Route:
    """The route of an object; one that a PACS sends because we asked for it must be of the patient we asked for."""
    from dicom_listener.asked import admit_moved

    if request.move_originator != node.settings.ae_title.strip():
        return route
    return admit_moved(request.move_message_id, node.issuers.canonical)(header, route)


def listener_settings(settings: Settings) -> ListenerSettings:
    """What the listener is told. Raises `Misconfigured` when the TLS files are wrong."""
    from dicom_listener.scp import ListenerSettings

    return ListenerSettings(
        host=settings.dicom_host,
        port=settings.dicom_port,
        ae_title=settings.ae_title,
        require_called_ae=settings.dicom_check_called_ae,
        peers=peers(settings),
        promiscuous=settings.dicom_promiscuous,
        max_pdu=settings.dicom_max_pdu,
        max_associations=settings.dicom_max_associations,
        max_object_bytes=settings.dicom_max_object_bytes,
        handshake_timeout=settings.dicom_tls_handshake_seconds,
        negotiation_timeout=settings.dicom_negotiation_seconds,
        idle_timeout=settings.dicom_idle_seconds,
        lowest_rate=settings.dicom_lowest_rate,
        share_port=settings.dicom_processes > 1,
        tls=_server_tls(settings),
    )


def peers(settings: Settings) -> tuple[Peer, ...]:
    """The list of senders; AE titles of the short list come from any address."""
    from dicom_listener.admission import Peer

    listed = [
        Peer(
            ae_title=peer.ae_title.strip(),
            networks=peer.addresses,
            max_associations=peer.max_associations,
            objects_per_minute=peer.objects_per_minute,
            max_object_bytes=peer.max_object_bytes,
        )
        for peer in settings.dicom_peers
    ]
    return (*listed, *(Peer(title.strip()) for title in settings.dicom_calling_ae_titles))


def rules(settings: Settings) -> Rules:
    """The routing rules, checked. Raises `Misconfigured`, naming the rule that is wrong."""
    from dicom_listener.rules import Rule, Rules

    names = [p.name for p in settings.pacs] + [s.name for s in settings.stow] + [f.name for f in settings.fhir]
    return Rules([Rule(**rule.model_dump()) for rule in settings.rules], names)


def pacs_tls(settings: Settings, pacs: PacsDestination) -> ReloadedContext[ClientContext] | None:
    """TLS towards one PACS, or `None` where it takes plain connections. Raises `Misconfigured`."""
    if not pacs.tls:
        return None
    from dicom_listener.tls import client_tls

    files = _files(settings)
    chosen = replace(files, authorities=pacs.tls_ca or files.authorities)
    return client_tls(chosen, check_name=pacs.tls_check_name)


def commitment_requester(node: Node, pacs: PacsDestination) -> CommitmentRequester:
    """Asks one PACS to commit to what it was sent. Raises `Misconfigured`."""
    from dicom_listener.commitment_request import CommitmentRequester

    host, port, ae_title = peer_of(pacs)
    return CommitmentRequester(
        pacs.name,
        host,
        port,
        ae_title,
        node.settings.ae_title,
        lambda report: receive(node, report),
        tls=pacs_tls(node.settings, pacs),
    )


def stow_destination(stow: StowSettings) -> StowDestination:
    """A PACS that takes results by STOW-RS. Raises `Misconfigured`."""
    from dicom_listener.deliver import StowDestination

    return StowDestination(
        name=stow.name,
        base_url=stow.base_url,
        token=stow.token,
        username=stow.username,
        password=stow.password,
        authorities=stow.tls_ca,
        timeout=stow.timeout_seconds,
        rejection_notes=stow.rejection_notes,
    )


def report_tls(settings: Settings) -> ReloadedContext[ClientContext]:
    """TLS for storage commitment reports to senders that are no destination. Raises `Misconfigured`."""
    from dicom_listener.tls import client_tls

    return client_tls(_files(settings))


def check(settings: Settings) -> None:
    """Raises `Misconfigured` for what would stop a process later, before any is started."""
    rules(settings)
    listener_settings(settings)
    for pacs in settings.pacs:
        pacs_tls(settings, pacs)
        _check_reports_get_in(settings, pacs)
    for stow in settings.stow:
        stow_destination(stow)
    for archive in settings.archives:
        from cds_service.pull_sources import archive_of

        archive_of(archive, settings.dicom_max_object_bytes)
    if any(peer.report_tls for peer in settings.dicom_peers):
        report_tls(settings)


def _check_reports_get_in(settings: Settings, pacs: PacsDestination) -> None:
    """Raises `Misconfigured` where a PACS is asked for commitment, and its report would be refused at the door."""
    title = peer_of(pacs)[2]
    listed = {peer.ae_title for peer in peers(settings)}
    if pacs.commitment and listed and title not in listed and not settings.dicom_promiscuous:
        raise Misconfigured(
            f"{pacs.name} is asked for storage commitment, but its AE title {title} is not let in to report: "
            "name it in dicom_peers"
        )


def _server_tls(settings: Settings) -> ReloadedContext[ssl.SSLContext] | None:
    from dicom_listener.tls import server_tls

    files = _files(settings)
    if files.certificate is None and files.key is None:
        return None  # authorities alone are for the PACS that we send to
    return server_tls(files, mutual=settings.dicom_tls_mutual)


def _files(settings: Settings) -> TlsFiles:
    from dicom_listener.tls import TlsFiles

    return TlsFiles(
        certificate=settings.dicom_tls_certificate,
        key=settings.dicom_tls_key,
        authorities=settings.dicom_tls_ca,
        password=settings.dicom_tls_key_password.get_secret_value(),
    )


def _record(node: Node, refused: Refused) -> None:
    with node.begin() as session:
        node.audit.append(
            session,
            AuditEntry(
                action=f"{refused.kind}.refused",
                actor=refused.caller or refused.address or "unknown",
                subject_type=refused.kind,
                subject_id=refused.address,
                outcome="failure",
                details={
                    "called": refused.called,
                    "answer": refused.answer,
                    "reason": refused.reason,
                    "count": refused.count,
                },
            ),
        )
