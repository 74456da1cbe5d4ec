"""Configuration: every setting that changes what is spoken, with its default and its present value (PS3.2 N.6)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from dermoscopy.settings import Settings
from dicom_listener.conformance.deployment import Deployment
from dicom_listener.conformance.document import Section, Table, rows

GENERAL: Final = {
    "ae_title": "AE title of all Application Entities",
    "disk_watermark_bytes": "below so much room storage is answered with A700",
    "backlog_watermark": "above so many waiting images storage is answered with A700; 0 is no limit",
    "default_issuer": "Issuer of Patient ID of objects that name none",
    "rules": "routing rules, by name",
    "seg_hair": "a second segment, with hair, in segmentations",
}
DIMSE: Final = {
    "dicom_host": "address that is listened on",
    "dicom_port": "TCP port that is listened on",
    "dicom_processes": "listener processes that share the port",
    "dicom_check_called_ae": "senders must call us by our AE title",
    "dicom_promiscuous": "AE titles that are on no list may send",
    "dicom_calling_ae_titles": "AE titles that may send from any address",
    "dicom_peers": "senders with addresses and limits, by AE title",
    "dicom_max_pdu": "largest PDU that is taken (bytes)",
    "dicom_max_associations": "associations at a time, per process",
    "dicom_max_object_bytes": "largest object that is taken",
    "dicom_negotiation_seconds": "time for the association request, and for silence inside a PDU",
    "dicom_idle_seconds": "silence after which an association ends",
    "dicom_lowest_rate": "bytes per second below which a sender is cut off",
    "dicom_shutdown_seconds": "time for messages in hand when the service stops",
    "dicom_tls_certificate": "our certificate; turns TLS on",
    "dicom_tls_key": "its private key",
    "dicom_tls_key_password": "password of that key",
    "dicom_tls_ca": "authorities that sign the certificates of peers",
    "dicom_tls_mutual": "senders must show a certificate",
    "dicom_tls_handshake_seconds": "time for the whole TLS handshake",
    "pacs": "PACS that take results, by name",
    "pull_modalities": "modalities of series that are looked into for earlier images",
    "pull_priors": "source that is asked for earlier images by itself",
    "delivery_backoff_seconds": "first pause before a delivery is tried again",
    "delivery_backoff_limit_seconds": "longest such pause",
}
WEB: Final = {
    "host": "address of the HTTP server",
    "port": "TCP port of the HTTP server",
    "public_url": "address under which it is reached",
    "dicomweb_max_request_bytes": "largest body of one STOW-RS request",
    "dicomweb_search_objects": "objects that one search looks at",
    "stow": "DICOMweb servers that take results, by name",
    "archives": "DICOMweb archives that are searched and read, by name",
}


def configuration(deployment: Deployment) -> Section:
    """N.6."""
    settings = deployment.settings
    return Section(
        "6",
        "Configuration",
        ("Environment variables `CDS_…` or a TOML file; [Configuration](configuration.md) describes every setting.",),
        (
            Section("6.1", "General configuration parameters", (_table("general", settings, GENERAL),)),
            Section(
                "6.2",
                "Configuration of DIMSE services",
                (_table("dimse", settings, DIMSE), _senders(deployment), _remote(settings)),
            ),
            Section(
                "6.3",
                "Configuration of DICOM Web Services",
                (_table("web", settings, WEB), _servers(settings)),
            ),
            Section("6.4", "Configuration of media and Real-Time Video services", ("None.",)),
            Section("6.5", "Configuration of the audit trail", ("None: it is always on ([Audit log](audit.md)).",)),
        ),
    )  # fmt: skip


def _table(key: str, settings: Settings, meanings: dict[str, str]) -> Table:
    table = []
    for name, meaning in meanings.items():
        default = Settings.model_fields[name].get_default(call_default_factory=True)
        table.append((f"`{name}`", meaning, shown(default), shown(getattr(settings, name))))
    columns = ("Parameter", "Meaning", "Default", "This configuration")
    return Table(f"parameters-{key}", "Parameters", columns, rows(table))


def shown(value: Any) -> str:
    """A value for readers: names of entries, whether a file or a secret is set, never what is in it."""
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, SecretStr):
        return "set" if value.get_secret_value() else "none"
    if isinstance(value, Path):
        return "set"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(str(getattr(one, "name", "") or getattr(one, "ae_title", "") or one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _senders(deployment: Deployment) -> Table:
    peers = [
        (
            peer.ae_title,
            ", ".join(map(str, peer.networks)) or "any",
            peer.max_associations or "as all",
            peer.objects_per_minute or "no limit",
            peer.max_object_bytes or "as all",
        )
        for peer in deployment.listener.peers
    ]
    columns = ("AE Title", "Addresses", "Associations", "Objects per minute", "Object bytes")
    return Table("senders", "Senders that are let in by name", columns, rows(peers))


def _remote(settings: Settings) -> Table:
    table = [
        (
            pacs.name,
            pacs.ae_title,
            f"{pacs.host}:{pacs.port}",
            shown(pacs.tls),
            shown(pacs.commitment),
            pacs.retrieve if pacs.query else "no",
            shown(pacs.rejection_notes),
        )
        for pacs in settings.pacs
    ]
    columns = ("Name", "AE Title", "Address", "TLS", "Commitment", "Query/Retrieve", "Rejection notes")
    return Table("remote-entities", "Remote Application Entities", columns, rows(table))


def _servers(settings: Settings) -> Table:
    table = [(one.name, one.base_url, "store") for one in settings.stow]
    table += [(one.name, one.base_url, "search, retrieve") for one in settings.archives]
    return Table("remote-servers", "Remote DICOMweb servers", ("Name", "Base URL", "Services"), rows(table))
