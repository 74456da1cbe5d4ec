"""Security (PS3.2 N.8 and its annex), and where attributes of results come from (annex D)."""

from __future__ import annotations

from dicom_listener.conformance.configuration import shown
from dicom_listener.conformance.deployment import Deployment
from dicom_listener.conformance.document import Section, Table, rows
from dicom_listener.tls import CIPHERS, EXPIRY_WARNING_DAYS


def security(deployment: Deployment) -> Section:
    """N.8."""
    return Section(
        "8",
        "Security",
        sections=(
            Section(
                "8.1",
                "Introduction",
                (
                    "Patient data may travel in every service of this statement. Beyond loopback the product listens "
                    "only where senders are named, or admitted by an explicit setting (DICOM), "
                    "and where tokens or a login are set (HTTP).",
                ),
            ),
            Section(
                "8.2",
                "External network requirements",
                ("Clock and name resolution of the operating system. No LDAP, DHCP or DNS-SD profile.",),
            ),
            Section("8.3", "TCP port configuration", (_ports(deployment),)),
            Section("8.4", "DICOM security profiles support", (_profiles(deployment), *_transport(deployment))),
            Section("8.5", "User Identity Negotiation support", ("None, as initiator and as acceptor.",)),
            Section("8.6", "Web services security features", (_web(deployment),)),
            Section(
                "8.7",
                "Other security features",
                (
                    "Associations are admitted by called and calling AE title and address (7.2.1). Structure, size and "
                    "speed of what comes are bounded before it is parsed. Every refusal, acceptance, retrieval, "
                    "delivery and commitment leaves an entry in an append-only audit log with signed tree heads "
                    "([Audit log](audit.md)). Logs and errors hold no patient data.",
                ),
            ),
        ),
    )


def _ports(deployment: Deployment) -> Table:
    settings = deployment.settings
    dicom = "DICOM over TLS" if deployment.listener.tls is not None else "DICOM"
    table = [
        (dicom, "in", settings.dicom_port, settings.dicom_host),
        ("HTTP: DICOMweb, REST API, pages", "in", settings.port, settings.host),
        *(("DICOM over TLS" if p.tls else "DICOM", "out", p.port, f"{p.host} ({p.name})") for p in settings.pacs),
        *(
            ("DICOMweb", "out", "by URL", f"{one.base_url} ({one.name})")
            for one in (*settings.stow, *settings.archives)
        ),
        *(
            ("DICOM over TLS" if p.report_tls else "DICOM", "out", p.report_port, f"{p.report_host or 'the requester'}")
            for p in settings.dicom_peers
            if p.report_port
        ),
    ]
    return Table("ports", "TCP ports", ("Protocol", "Direction", "Port", "Host"), rows(table))


def _profiles(deployment: Deployment) -> Table:
    inward, outward = deployment.listener.tls is not None, [pacs.name for pacs in deployment.settings.pacs if pacs.tls]
    table = (
        ("BCP 195 TLS Secure Transport Connection, acceptor", "in use" if inward else "supported, off"),
        ("BCP 195 TLS Secure Transport Connection, initiator", ", ".join(outward) or "supported, off"),
        ("Non-Downgrading BCP 195 TLS", "supported where TLS is on: a plain peer is not served"),
        ("Basic Application Level Confidentiality", "see 1.6"),
        ("Audit Trail Message Format and Transmission", "not supported; the audit log is the product's own"),
        ("Digital Signatures, Media Storage Security, Online Electronic Storage", "not supported"),
    )
    return Table("security-profiles", "Profiles of PS3.15", ("Profile", "Support"), rows(table))


def _transport(deployment: Deployment) -> tuple[str | Table, ...]:
    settings = deployment.settings
    on = deployment.listener.tls is not None
    parameters = (
        ("Listener uses TLS", shown(on)),
        ("Sender must show a certificate (mutual)", shown(on and settings.dicom_tls_mutual)),
        ("Versions", "TLS 1.2 and TLS 1.3"),
        ("Cipher suites of TLS 1.2", ", ".join(CIPHERS.split(":"))),
        ("Cipher suites of TLS 1.3", "those of the OpenSSL library"),
        ("Compression, renegotiation, session tickets", "off"),
        ("Time for the handshake", f"{settings.dicom_tls_handshake_seconds:g} s, in its own thread per connection"),
        ("Certificates", f"PEM files, read again when they change; a warning {EXPIRY_WARNING_DAYS} days before expiry"),
        ("Initiator", "verifies the chain, and the host name unless `tls_check_name` is off; shows our certificate"),
    )
    return (Table("tls", "TLS", ("Parameter", "Value"), rows(parameters)),)


def _web(deployment: Deployment) -> str:
    settings = deployment.settings
    roles = ", ".join(sorted({token.role.value for token in settings.api_tokens})) or "none"
    who = f"Bearer tokens (RFC 6750) with roles; roles of the tokens of this configuration: {roles}."
    if not settings.api_tokens and settings.login is None and not settings.smart_launch_servers:
        who += " Without tokens everything is open to this machine, and the server listens on loopback only."
    return (
        f"{who} For reading, a token may come as the password of Basic credentials. HTTPS is terminated by a reverse "
        "proxy. As user agent: https with the authorities of `tls_ca` or of the system; a token, or Basic credentials."
    )


def mapping() -> Section:
    """Annex D."""
    table = (
        ("C-STORE, STOW-RS: source object", "Patient and General Study attributes of all results", "COPY in Annex A"),
        ("A person assigned the image to another patient", "Patient ID and Issuer", "name, birth date, sex left out"),
        ("HTTP picture: patient, accession, body site, laterality", "Dermoscopic Photography", "as given with it"),
        ("Timezone Offset From UTC of the source", "times of results", "else UTC"),
        ("Tracking ID and UID of the source", "segment and measurement group", "else derived from the instance"),
        ("Clinician's review", "Verifying Observer, Predecessor Documents, Content Creator's Name", "at amendments"),
    )
    return Section(
        "D",
        "Mapping of attributes",
        (Table("mapping", "Mapping", ("Source", "Destination", "Remark"), rows(table)), "No worklist is used."),
    )
