"""Overview, introduction and implementation model (PS3.2 N.1, N.3, N.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.uid import UID

from dermoscopy.domain import ArtifactKind
from dicom_listener.commitment import COMMITMENT_CLASS
from dicom_listener.conformance.deployment import NO, OFF, YES, Contexts, Deployment, syntax_name
from dicom_listener.conformance.document import Section, Table, rows
from dicom_listener.conformance.examples import Example
from dicom_listener.conformance.objects import is_extended, templates
from dicom_listener.deidentify_table import Retained, claimed
from dicom_listener.query import STUDY_ROOT_FIND
from dicom_listener.render.modules import CHARACTER_SET
from dicom_listener.retrieve import STUDY_ROOT_GET, STUDY_ROOT_MOVE
from dicom_listener.syntaxes import VERIFICATION

LEGEND: Final = (
    "Y: supported and in use in this configuration. O: supported, not in use in this configuration. N: not supported. "
    "Created objects are of a Standard (S) or a Standard Extended (SE) SOP Class."
)
RECEIVER, SENDER, FETCHER = "Receiver", "Sender", "Fetcher"
WEB_SERVER, WEB_CLIENT = "Web Server", "Web Client"


def overview(deployment: Deployment, contexts: Contexts, found: Sequence[Example]) -> Section:
    """N.1."""
    return Section(
        "1",
        "Overview",
        (
            "Dermoscopy CDS takes in dermoscopic photographs, analyses each with an AI model and returns a second "
            "opinion: a segmentation, a structured report and a secondary capture, each in the study of the "
            "photograph. It is no archive: what it keeps is for its own use, and can be retrieved by DICOMweb.",
            LEGEND,
        ),
        (
            Section(
                "1.1",
                "Content and transfer",
                (_content(deployment, contexts, found), _sets(contexts)),
                (Section("1.1.1", "Structured Reporting root template IDs", (templates(found),)),),
            ),
            Section("1.2", "DIMSE services", (_dimse(deployment),)),
            Section("1.3", "DICOM Web Services", (_web(deployment),)),
            Section("1.4", "Media services", ("None: no media are read or written.",)),
            Section("1.5", "Real-Time Video services", ("None.",)),
            Section("1.6", "De-identification profiles", (*_deidentification(),)),
            Section(
                "1.7",
                "Specific Character Sets",
                (f"Objects that are made carry {CHARACTER_SET} (UTF-8). What is taken in: 5.7.",),
            ),
        ),
    )


def _content(deployment: Deployment, contexts: Contexts, found: Sequence[Example]) -> Table:
    """Table N.1-1: every storage SOP class."""
    accepted = {one.uid: one for one in contexts.accepted if one.uid not in (VERIFICATION, COMMITMENT_CLASS)}
    stored = {one.uid: one for one in contexts.stored if one.uid != VERIFICATION}
    made = {str(example.dataset.SOPClassUID): example.kind for example in found}
    table = []
    for uid in sorted({*accepted, *stored}, key=lambda one: [int(part) for part in one.split(".")]):
        taken = uid in accepted
        table.append(
            (
                UID(uid).name,
                uid,
                accepted[uid].sets if taken else stored[uid].sets,
                deployment.sends if uid in stored else NO,
                YES if taken else NO,
                _web_user(deployment, taken=taken, made=uid in made),
                YES,
                _created(uid, found) if uid in made else NO,
                YES if made.get(uid) is not ArtifactKind.REJECTION_NOTE else NO,
                YES if taken else NO,
                NO,
            )
        )
    columns = (
        *("SOP Class", "UID", "Transfer Syntax Set", "DIMSE SCU", "DIMSE SCP"),
        *("Web User Agent", "Web Origin Server", "Create", "Display", "Process", "Archive"),
    )
    return Table("content-and-transfer", "Table 1-1: Content and transfer", columns, rows(table))


def _web_user(deployment: Deployment, *, taken: bool, made: bool) -> str:
    """Whether objects go out by STOW-RS, or come in from an archive."""
    ways = ([deployment.searches] if taken else []) + ([deployment.stows] if made else [])
    return min(ways, default=NO, key=(YES, OFF, NO).index)


def _created(uid: str, found: Sequence[Example]) -> str:
    return "SE" if is_extended([one for one in found if str(one.dataset.SOPClassUID) == uid]) else "S"


def _sets(contexts: Contexts) -> Table:
    """Table N.1-2."""
    table = [
        (letter, place, syntax_name(uid), uid)
        for letter, syntaxes in contexts.sets.items()
        for place, uid in enumerate(syntaxes, 1)
    ]
    columns = ("Set", "Preference", "Transfer Syntax", "UID")
    return Table("transfer-syntax-sets", "Table 1-2: Transfer Syntax sets", columns, rows(table))


def _dimse(deployment: Deployment) -> Table:
    table = (
        ("Verification", VERIFICATION, OFF, YES),
        ("Storage", "see 1.1", deployment.sends, YES),
        ("Storage Commitment", COMMITMENT_CLASS, deployment.asks_commitment, YES),
        ("Query (Study Root)", STUDY_ROOT_FIND, deployment.queries, NO),
        ("Retrieve by C-MOVE (Study Root)", STUDY_ROOT_MOVE, deployment.retrieves("move"), NO),
        ("Retrieve by C-GET (Study Root)", STUDY_ROOT_GET, deployment.retrieves("get"), NO),
        ("Workflow Management (MWL, MPPS, UPS, IAN)", "", NO, NO),
        ("Print Management", "", NO, NO),
    )
    return Table("dimse-services", "Table 1-3: DIMSE services", ("Service", "SOP Class", "SCU", "SCP"), rows(table))


def _web(deployment: Deployment) -> Table:
    table = (
        ("Studies: Store (STOW-RS)", deployment.stows, YES),
        ("Studies: Search (QIDO-RS)", deployment.searches, YES),
        ("Studies: Retrieve (WADO-RS)", deployment.searches, YES),
        ("URI (WADO-URI)", NO, NO),
        ("Worklist, Non-Patient Instance, Notification", NO, NO),
        ("Storage Commitment", NO, NO),
    )
    return Table(
        "web-services", "Table 1-4: DICOM Web Services", ("Service", "User Agent", "Origin Server"), rows(table)
    )


def _deidentification() -> tuple[str | Table, ...]:
    always = claimed(Retained())
    every = claimed(Retained(patient=True, device=True))
    table = [(o.code, o.meaning, "always" if o in always else "where asked for") for o in every]
    columns = ("Code (DCM)", "Profile or option of PS3.15 Annex E", "Applied")
    return (
        "`cds export` writes de-identified photographs as files ([De-identified export](deidentification.md)).",
        Table("deidentification", "Table 1-5: De-identification", columns, rows(table)),
    )


def introduction(deployment: Deployment) -> Section:
    """N.3."""
    return Section(
        "3",
        "Introduction",
        sections=(
            Section(
                "3.1",
                "Revision history",
                (f"Product version {deployment.version}. Changes are listed in the [change log](../CHANGELOG.md).",),
            ),
            Section(
                "3.2",
                "Audience",
                ("PACS administrators and integrators of hospitals and practices; readers know DICOM.",),
            ),
            Section(
                "3.3",
                "Remarks",
                (
                    "This statement was generated from a running configuration and from the tables that the service "
                    "itself negotiates, answers and renders with; object tables come from objects really rendered "
                    "from synthetic phantoms. It makes tests with the systems of a site easier and does not replace "
                    "them. Results are a second opinion for a clinician, and never a diagnosis.",
                ),
            ),
            Section(
                "3.4",
                "Terms and definitions",
                ("Those of PS3.2. *Hold*: something that waits for a decision of a person.",),
            ),
            Section(
                "3.5",
                "Abbreviations",
                (
                    "AE Application Entity, IOCM Imaging Object Change Management (IHE), IOD Information Object "
                    "Definition, PDU Protocol Data Unit, SCP and SCU Service Class Provider and User, SEG "
                    "Segmentation, SR Structured Report, TID Template Identifier. ALWAYS, ANAP (attribute not always "
                    "present), VNAP (value not always present), EMPTY, AUTO (made by the product), COPY (from the "
                    "source object) as in PS3.2.",
                ),
            ),
            Section("3.6", "References", ("DICOM PS3.1 to PS3.18; BCP 195 (RFC 8996, RFC 9325); RFC 9110, RFC 9457.",)),
        ),
    )


def implementation_model(deployment: Deployment) -> Section:
    """N.4."""
    title = deployment.settings.ae_title
    table = (
        (RECEIVER, title, "acceptor", "takes images and commitment requests and reports; answers C-ECHO"),
        (SENDER, title, "initiator", "sends results, asks for and reports commitment"),
        (FETCHER, title, "initiator", "looks for a patient's earlier photographs and has them sent"),
        (WEB_SERVER, "", "origin server", "STOW-RS, QIDO-RS and WADO-RS"),
        (WEB_CLIENT, "", "user agent", "sends results by STOW-RS; searches and reads archives"),
    )
    return Section(
        "4",
        "Implementation model",
        sections=(
            Section(
                "4.1",
                "Application Entities and data flow",
                (
                    "camera or PACS → Receiver or Web Server → object store, database and analysis → Sender or Web "
                    "Client → PACS. With an earlier image wanted: Fetcher → PACS → Receiver.",
                    Table(
                        "application-entities",
                        "Table 4-1: Application Entities",
                        ("Application Entity", "AE Title", "Role", "Real-world activity"),
                        rows(table),
                    ),
                ),
            ),
            Section(
                "4.2",
                "Functional definition",
                (
                    f"**{RECEIVER}** stores an image durably and starts its analysis before it answers success; an "
                    "image that is doubtful (no patient, another patient under a known UID, other bytes under a known "
                    "UID, several frames) is kept and held for a person. Routing rules decide what is analysed, kept "
                    "only, or refused. Objects that this product made are kept and never analysed.",
                    f"**{SENDER}** sends each result to each destination on its own: one that is refused holds up no "
                    "other. It tries again while a destination is away. Sending twice changes nothing, since UIDs are "
                    "derived. A result that a clinician amended goes out as a new instance, with a rejection note "
                    "(IOCM) for the former one.",
                    f"**{FETCHER}** works when a person or the EHR asks, and, where `pull_priors` names a source, when "
                    "a new image has come. Objects of another patient than asked for are refused.",
                ),
            ),
        ),
    )
