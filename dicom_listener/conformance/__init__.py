"""The DICOM Conformance Statement of a running configuration, in the structure of PS3.2 Annex N.

Everything in it is read from what the service itself uses: presentation contexts as given to pynetdicom, status tables,
settings, and objects rendered from phantoms. What had to be written by hand is keyed by those, so that a new status or
setting without words stops the statement, and a test.
"""

from __future__ import annotations

from dicom_listener.conformance.configuration import configuration
from dicom_listener.conformance.deployment import Contexts, Deployment, WebResource
from dicom_listener.conformance.document import Document, Section
from dicom_listener.conformance.examples import examples
from dicom_listener.conformance.network import network
from dicom_listener.conformance.objects import code_sets, information_objects, report_content
from dicom_listener.conformance.overview import implementation_model, introduction, overview
from dicom_listener.conformance.security import mapping, security
from dicom_listener.conformance.services import services

__all__ = ["Deployment", "Document", "WebResource", "statement"]


def statement(deployment: Deployment) -> Document:
    """The whole statement; renders a few phantoms, which takes seconds. Raises `KeyError` for what has no words."""
    contexts = Contexts(deployment)
    found = examples(hair=deployment.settings.seg_hair)
    title = "DICOM Conformance Statement: Dermoscopy CDS"
    preface = (
        f"Version {deployment.version}. Written by `cds conformance`; not to be edited. Section numbers are those of "
        "PS3.2 Annex N.",
    )
    return Document(
        title,
        preface,
        (
            overview(deployment, contexts, found),
            introduction(deployment),
            implementation_model(deployment),
            services(deployment),
            configuration(deployment),
            network(deployment, contexts),
            security(deployment),
            information_objects(found),
            report_content(found),
            Section("C", "Security details", ("See 8.4: the transport profile has no details beyond its table.",)),
            mapping(),
            code_sets(found),
        ),
    )
