"""The one composition root: settings in, running rooms out. Nothing else joins siblings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from audit.checkpoint import Signer, open_signer
from audit.log import MerkleAuditLog
from cds_service.lesions import Comparisons
from cds_service.listening import pacs_tls, stow_destination
from cds_service.node import Node
from cds_service.pipeline import Pipeline
from dermoscopy.blobs import open_blob_store
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.intake import Intake
from dermoscopy.overlay import draw_overlay, encode_png
from dermoscopy.patients import IssuerMap
from dermoscopy.ports import Destination, Renderer, RenderInput
from dermoscopy.reviews import standing
from dermoscopy.settings import Settings
from dermoscopy.workqueue import DurableWorkQueue
from models.registry import ModelPackage, champion, open_package

ENGINES = "engines"
"""Folder in the data folder for what TensorRT builds for this machine's GPU; may be deleted at any time."""
WITNESS = "checkpoints.txt"
"""File in the audit folder that keeps every signed tree head outside the database; copy it off the machine."""


def code_version() -> str:
    """Version of this code as installed; stands in every result."""
    try:
        return version("dermoscopy-cds")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


def chosen_package(settings: Settings) -> ModelPackage:
    """The model this deployment answers with. Raises `Misconfigured`."""
    return champion(settings.models_dir, settings.model).in_form(settings.inference_precision)


def open_node(settings: Settings) -> Node:
    """Open what every process needs; loads no weights and starts no thread. The database must be migrated."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_database_engine(settings.resolved_database_url)
    begin = unit_of_work(engine)
    blobs = open_blob_store(
        settings.blob_url, settings.data_dir / "blobs", watermark_bytes=settings.disk_watermark_bytes
    )
    audit = MerkleAuditLog()
    queue = DurableWorkQueue(engine)
    reference = chosen_package(settings).reference
    intake = Intake(begin, blobs, audit, queue, reference, default_issuer=settings.default_issuer)
    issuers = IssuerMap(settings.issuers, default_issuer=settings.default_issuer)
    return Node(settings, engine, begin, blobs, audit, queue, intake, issuers, reference)


def open_audit_signer(settings: Settings) -> Signer:
    """The key that signs tree heads; made on first use in the data folder."""
    return open_signer(audit_folder(settings))


def audit_folder(settings: Settings) -> Path:
    """Where signing key, public key and the checkpoints outside the database lie."""
    return settings.data_dir / "audit"


def open_pipeline(node: Node) -> Pipeline:
    """Pipeline of a worker: checks and loads the weights (and so imports ONNX, pydicom and FHIR)."""
    from dicom_listener.decode import decode
    from dicom_listener.stated import stated_of
    from models.analyze import LesionAlgorithm
    from models.compare import LesionComparison
    from models.hair import hair_over
    from models.measure import measure_outline
    from models.session import OnnxSession

    settings = node.settings
    package = open_package(settings.models_dir, node.champion.name, node.champion.version)
    package = package.in_form(settings.inference_precision)
    session = OnnxSession.open(
        package,
        provider=settings.execution_provider,
        threads=settings.inference_threads,
        batch=settings.inference_batch,
        cache=settings.data_dir / ENGINES,
    )
    algorithm = LesionAlgorithm(package, session, code_version=code_version())
    hair = hair_over if settings.seg_hair else None
    return Pipeline(
        node,
        algorithm,
        decode,
        renderers(node),
        destinations(node),
        measure=measure_outline,
        hair=hair,
        comparisons=Comparisons(node, decode, LesionComparison(package.manifest.thresholds.change), stated_of),
    )


def renderers(node: Node) -> Mapping[ArtifactKind, Renderer]:
    """Every output in the order in which it is drawn; later ones may refer to earlier ones."""
    from dicom_listener.render import REJECTION
    from dicom_listener.render import RENDERERS as DICOM
    from fhir_adapters.render import RENDERERS as FHIR

    return {ArtifactKind.OVERLAY: _overlay, **DICOM, **REJECTION, **FHIR}


def destinations(node: Node) -> list[Destination]:
    """Every configured PACS, DICOMweb and FHIR server."""
    from cds_service.fhir_servers import fhir_destination
    from dicom_listener.deliver import CStoreDestination

    settings = node.settings
    pacs = [
        CStoreDestination(
            name=p.name,
            host=p.host,
            port=p.port,
            called_ae=p.ae_title,
            calling_ae=settings.ae_title,
            tls=pacs_tls(settings, p),
            rejection_notes=p.rejection_notes,
        )
        for p in settings.pacs
    ]
    stow = [stow_destination(s) for s in settings.stow]
    fhir = [fhir_destination(f, node.issuers) for f in settings.fhir]
    return [*pacs, *stow, *fhir]


def _overlay(what: RenderInput) -> Artifact:
    pixels = draw_overlay(what.image, what.analysis.finding, standing(what.reviews), what.outlined)
    return Artifact(ArtifactKind.OVERLAY, "image/png", encode_png(pixels), uid="")
