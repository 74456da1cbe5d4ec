"""De-identified export: chosen images leave under pseudonyms, with labels, a log of what was removed and a manifest.

Everything is written beside the target first and moved there as a whole, once the audit leaf stands: there is no export
without its leaf, and half an export is none. `cds_service.export_gate` decides what may leave.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import structlog
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.bootstrap import code_version
from cds_service.export_gate import (
    APPROVABLE,
    HELD,
    NOT_REVIEWED,
    UNREADABLE,
    WITHDRAWN,
    clean,
    doubts_of_finding,
    doubts_of_object,
    doubts_of_pixels,
    first,
)
from cds_service.export_labels import (
    Said,
    described,
    lesion_of,
    said_of,
    site_name,
    write_json,
    write_rows,
)
from cds_service.node import Node
from dermoscopy.analyses import load_analysis, load_source
from dermoscopy.domain import Analysis, DermoscopicImage, Mask, PatientIdentity, SourceObject
from dermoscopy.errors import BlobCorrupted, Misconfigured, Rejected
from dermoscopy.outcomes import OutcomeState
from dermoscopy.outline import outline_mask
from dermoscopy.overlay import encode_mask, encode_png
from dermoscopy.ports import AuditEntry
from dermoscopy.pseudonyms import Pseudonyms, open_pseudonyms
from dermoscopy.reviews import reviews_of
from dermoscopy.tables import AnalysisRow, InstanceRow, OutcomeRow, utc_now
from dicom_listener.deidentify import Identity, deidentify
from dicom_listener.deidentify_source import Photograph, open_photograph
from dicom_listener.deidentify_table import Retained, claimed

log = structlog.get_logger(__name__)

KEYS = "export-keys"
"""Folder of the projects' keys in the data folder."""
RECORDS = "exports"
"""Folder in the data folder that tells which image went into which export; it never leaves."""
LABELS, UNLABELLED, REMOVED, MANIFEST = "labels.csv", "unlabelled.csv", "removed.json", "manifest.json"
Form = Literal["dicom", "png"]
_NAMED = 10
"""So many images that a person might approve are named where nothing may leave."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be exported. ``since``: received then or later; ``site``: body site, SNOMED CT."""

    folder: Path
    project: str = "default"
    form: Form = "png"
    since: datetime | None = None
    site: str = ""
    reviewed_only: bool = False
    include: frozenset[str] = frozenset()
    """Ids of images or of their analyses that a person looked at and approved."""
    retained: Retained = field(default_factory=Retained)


@dataclass(frozen=True, slots=True)
class KeptBack:
    """An image that stays, and why."""

    instance_id: str
    reason: str
    analysis_id: str = ""
    """Where it can be looked at; empty where it was never analysed."""


@dataclass(frozen=True, slots=True)
class Exported:
    """How an export ended. ``digest``: SHA-256 of the manifest; ``approved``: exported on a person's word."""

    images: int
    patients: int
    labelled: int
    approved: tuple[KeptBack, ...]
    kept_back: tuple[KeptBack, ...]
    digest: str
    key_id: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    row: InstanceRow
    analysis: Analysis | None
    said: Said
    approved: bool


def export(node: Node, asked: Asked, *, actor: str) -> Exported:
    """Write a de-identified export to ``asked.folder``; ``actor`` stands in the audit log.

    Raises `Misconfigured` (the folder or the key), `Rejected` (an image to include is not there, or nothing may leave).
    """
    target = _checked(asked.folder, node.settings.data_dir)
    names = open_pseudonyms(node.settings.data_dir / KEYS, asked.project)
    chosen = _chosen(node, asked)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    aside.mkdir(parents=True, mode=0o700)
    try:
        done = _Writing(node, asked, names, aside)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in an object would be quoted
            for instance_id in chosen:
                done.take(instance_id)
        result = done.finish()
        node_record = node.settings.data_dir / RECORDS
        node_record.mkdir(mode=0o700, exist_ok=True)
        write_json(node_record / f"{result.digest[:16]}.json", done.record(result))
        with node.begin() as session:
            node.audit.append(session, _leaf(asked, result, actor))
        if target.exists():
            target.rmdir()  # empty: that was checked, and is checked again here
        aside.rename(target)
    finally:
        if aside.exists():
            shutil.rmtree(aside)
    return result


def _checked(folder: Path, data_dir: Path) -> Path:
    """The target. Raises `Misconfigured` where there is something already, or where the service keeps its own data."""
    target, own = folder.resolve(), data_dir.resolve()
    if target == own or own in target.parents or target in own.parents:
        raise Misconfigured(f"{folder}: give a folder that neither holds the service's data nor lies in it")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Misconfigured(f"{folder} is not empty: give a new folder, so that nothing else leaves with the export")
    return target


def _chosen(node: Node, asked: Asked) -> list[str]:
    """Ids of the instances that are asked for, oldest first. Raises `Rejected` where one to include is not there."""
    query = select(InstanceRow.id).order_by(col(InstanceRow.received_at), col(InstanceRow.id))
    if asked.since is not None:
        query = query.where(col(InstanceRow.received_at) >= asked.since)
    if asked.site:
        query = query.where(InstanceRow.body_site_code == asked.site)
    with node.begin() as session:
        chosen = list(session.execute(query).scalars())
        there = set(chosen)
        for wanted in sorted(asked.include):
            row = session.get(AnalysisRow, wanted)
            if (row.instance_id if row else wanted) not in there:
                raise Rejected(f"--include {wanted}: no such image, or analysis of one, among those that are asked for")
    return chosen


class _Writing:
    """One export while it is written into ``folder``."""

    def __init__(self, node: Node, asked: Asked, names: Pseudonyms, folder: Path) -> None:
        self._node, self._asked, self._names, self._folder = node, asked, names, folder
        self._rows: list[dict[str, str]] = []
        self._removed: Counter[tuple[str, str]] = Counter()
        self._files: dict[str, str] = {}
        self._approved: list[KeptBack] = []
        self._kept_back: list[KeptBack] = []
        self._taken: list[str] = []

    def take(self, instance_id: str) -> None:
        """Write one image, or note why it stays."""
        with self._node.begin() as session:
            candidate = self._candidate(session, instance_id)
            reason = self._reason(candidate)
            source = None if reason else self._source(session, instance_id)
        if source is not None:
            try:
                reason = self._write(candidate, source, open_photograph(source))
            except Rejected as error:
                log.warning("export.unreadable", instance=instance_id, error=type(error).__name__)
                reason = UNREADABLE
        elif not reason:
            reason = UNREADABLE
        if reason:
            self._kept_back.append(KeptBack(instance_id, reason, candidate.analysis.id if candidate.analysis else ""))
        else:
            self._taken.append(instance_id)

    def _source(self, session: Session, instance_id: str) -> SourceObject | None:
        try:
            return load_source(session, self._node.blobs, instance_id)
        except (BlobCorrupted, KeyError) as error:
            log.error("export.source_lost", instance=instance_id, error=type(error).__name__)
            return None

    def _candidate(self, session: Session, instance_id: str) -> _Candidate:
        row = session.get_one(InstanceRow, instance_id)
        session.expunge(row)
        query = select(AnalysisRow).where(AnalysisRow.instance_id == instance_id, col(AnalysisRow.document) != "")
        rows = session.execute(query.order_by(col(AnalysisRow.created_at).desc(), col(AnalysisRow.id))).scalars().all()
        analysis = load_analysis(session, self._node.blobs, rows[0].id) if rows else None
        matched = (OutcomeRow.state == OutcomeState.MATCHED, col(OutcomeRow.analysis_id).in_([one.id for one in rows]))
        outcomes = session.execute(select(OutcomeRow).where(*matched)).scalars().all()
        said = said_of([(one, reviews_of(session, one.id)) for one in rows], outcomes)
        approved = not self._asked.include.isdisjoint({instance_id, *(one.id for one in rows)})
        return _Candidate(row, analysis, said, approved)

    def _reason(self, candidate: _Candidate) -> str:
        """Why it stays, as far as the database knows."""
        if candidate.row.state == HELD:
            return HELD
        if candidate.said.standing.withdrawn:
            return WITHDRAWN
        if self._asked.reviewed_only and not candidate.said.reviewed:
            return NOT_REVIEWED
        return first(doubts_of_finding(candidate.analysis), approved=candidate.approved)

    def _write(self, candidate: _Candidate, source: SourceObject, photograph: Photograph) -> str:
        """Write one image; empty, or the reason why it stays."""
        row, said = candidate.row, candidate.said
        site = said.standing.body_site_code or row.body_site_code
        side = said.standing.laterality or row.laterality
        doubts = doubts_of_object(photograph, site)
        reason = first(doubts, approved=candidate.approved)
        if reason:
            return reason
        cleaned = clean(photograph.image.pixels)
        doubts += doubts_of_pixels(photograph, cleaned)
        reason = first(doubts, approved=candidate.approved)
        if reason:
            return reason
        doubts = doubts_of_finding(candidate.analysis) + doubts
        if doubts:
            self._approved.append(KeptBack(row.id, doubts[0]))
        patient = PatientIdentity(row.issuer, row.patient_id)
        pseudonym = self._names.patient(patient, instance_id=row.id)
        days = self._names.days(patient, instance_id=row.id)
        name = self._names.image(row.id)
        columns = {
            "image": self._put(f"images/{name}.png", encode_png(cleaned.pixels)),
            "image_id": name,
            "lesion_id": lesion_of(self._names, row, photograph.tracking_uid, site, side),
            "patient_id": pseudonym,
            "localization": site_name(site),
            "laterality": side if side in ("L", "R", "B", "U") else "",
            **described(photograph, self._asked.retained, days),
        }
        if said.lesion_class is not None:
            columns.update(dx=said.lesion_class.value, dx_type=said.dx_type)
        outline = _outline(said, photograph.image)
        if outline is not None:
            columns["mask"] = self._put(f"masks/{name}.png", encode_mask(outline))
        if self._asked.form == "dicom":
            made = deidentify(
                photograph.dataset,
                cleaned.pixels,
                Identity(pseudonym, days, self._names.uid),
                retained=self._asked.retained,
                body_site_code=site,
                altered=cleaned.altered,
            )
            self._removed.update(made.actions)
            columns["object"] = self._put(f"dicom/{name}.dcm", made.data)
        else:
            self._removed["every attribute of the object", "removed (PNG holds pixels alone)"] += 1
        if source.header.media_type != "application/dicom":
            self._removed["metadata of the picture file", "removed"] += 1
        if cleaned.altered:
            self._removed["pixels around the field", "blacked"] += 1
        self._rows.append(columns)
        return ""

    def _put(self, path: str, data: bytes) -> str:
        file = self._folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        self._files[path] = hashlib.sha256(data).hexdigest()
        return path

    def finish(self) -> Exported:
        """Write tables, log and manifest. Raises `Rejected` when nothing may leave."""
        if not self._rows:
            doubtful = [f"{one.instance_id} ({one.reason})" for one in approvable(tuple(self._kept_back))][:_NAMED]
            look = f"; look at these and approve by --include: {', '.join(doubtful)}" if doubtful else ""
            raise Rejected(f"nothing to export: {_counted(self._kept_back) or 'no image matches'}{look}")
        labelled = [row for row in self._rows if row.get("dx") or row.get("mask")]
        others = [row for row in self._rows if not (row.get("dx") or row.get("mask"))]
        for path, rows in ((LABELS, labelled), (UNLABELLED, others)):
            write_rows(self._folder / path, sorted(rows, key=lambda one: one["image_id"]))
            self._files[path] = hashlib.sha256((self._folder / path).read_bytes()).hexdigest()
        actions = [
            {"name": name, "action": action, "objects": count}
            for (name, action), count in sorted(self._removed.items())
        ]
        data = write_json(self._folder / REMOVED, {"actions": actions})
        self._files[REMOVED] = hashlib.sha256(data).hexdigest()
        patients = len({row["patient_id"] for row in self._rows})
        manifest = write_json(self._folder / MANIFEST, self._manifest(patients, len(labelled)))
        return Exported(
            images=len(self._rows),
            patients=patients,
            labelled=len(labelled),
            approved=tuple(self._approved),
            kept_back=tuple(self._kept_back),
            digest=hashlib.sha256(manifest).hexdigest(),
            key_id=self._names.key_id,
        )

    def _manifest(self, patients: int, labelled: int) -> dict[str, object]:
        asked = self._asked
        return {
            "profile": [
                {"code": option.code, "scheme": "DCM", "meaning": option.meaning} for option in claimed(asked.retained)
            ],
            "software": code_version(),
            "project": asked.project,
            "key_id": self._names.key_id,
            "format": asked.form,
            "exported_on": f"{utc_now():%Y-%m-%d}",
            "selection": {
                "since": f"{asked.since:%Y-%m-%d}" if asked.since else "",
                "site": asked.site,
                "reviewed_only": asked.reviewed_only,
            },
            "images": len(self._rows),
            "patients": patients,
            "labelled": labelled,
            "approved_by_name": sorted(self._names.image(one.instance_id) for one in self._approved),
            "kept_back": dict(Counter(one.reason for one in self._kept_back)),
            "files": self._files,
        }

    def record(self, result: Exported) -> Mapping[str, object]:
        """What stays here: which image is which, and what was kept back."""
        return {
            "digest": result.digest,
            "project": self._asked.project,
            "images": {instance_id: self._names.image(instance_id) for instance_id in self._taken},
            "kept_back": {one.instance_id: one.reason for one in self._kept_back},
            "approved": {one.instance_id: one.reason for one in self._approved},
        }


def _outline(said: Said, image: DermoscopicImage) -> Mask | None:
    outline = said.standing.outline
    return outline_mask(outline, image.rows, image.columns) if outline else None


def _counted(kept_back: list[KeptBack]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(k.reason for k in kept_back).items()))


def _leaf(asked: Asked, result: Exported, actor: str) -> AuditEntry:
    """Numbers and codes; of single images only those that a person approved, by their ids here."""
    return AuditEntry(
        action="export.deidentified",
        actor=actor,
        subject_type="export",
        subject_id=result.digest,
        details={
            "project": asked.project,
            "key_id": result.key_id,
            "format": asked.form,
            "profile": [option.code for option in claimed(asked.retained)],
            "images": result.images,
            "patients": result.patients,
            "labelled": result.labelled,
            "kept_back": dict(Counter(one.reason for one in result.kept_back)),
            "approved": {one.instance_id: one.reason for one in result.approved},
        },
    )


def approvable(kept_back: tuple[KeptBack, ...]) -> Iterator[KeptBack]:
    """What a person may look at and approve by name."""
    return (one for one in kept_back if one.reason in APPROVABLE)
