"""Which stored objects DICOMweb may show, by what the database knows of them: source instances and our results."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from cds_service.api.stored import READY
from dermoscopy.domain import ArtifactKind, PatientIdentity, derive_uid
from dermoscopy.routing import OUTPUTS
from dermoscopy.tables import AnalysisRow, ArtifactRow, FormerArtifactRow, InstanceRow
from dicom_listener.dicomweb_json import StoredObject

SHOWN = ("accepted", "stored")
"""States of an instance that may be shown: what is held, dismissed or was given to another patient may not."""
_KINDS = (
    *(kind.value for kind in OUTPUTS if kind is not ArtifactKind.FHIR_BUNDLE),
    ArtifactKind.REJECTION_NOTE.value,
)


def find_objects(
    session: Session,
    *,
    limit: int,
    studies: Sequence[str] = (),
    instances: Sequence[str] = (),
    patients: Sequence[str] = (),
    accessions: Sequence[str] = (),
    former: bool = False,
) -> tuple[list[StoredObject], bool]:
    """Objects that fit every list that is not empty, newest image first, and whether there are more.

    Of our results the current revision; with ``former`` those too that an amendment replaced or withdrew.

    Of several with one SOP Instance UID the first that was received stands. ``limit`` holds for sources and for
    results alike.
    """
    found: dict[str, StoredObject] = {}
    sources = _sources(session, limit, studies, instances, patients, accessions)
    results = _results(session, ArtifactRow, limit, studies, instances, patients, accessions)
    if former:
        results += _results(session, FormerArtifactRow, limit, studies, instances, patients, accessions)
    for stored in sources[:limit]:
        found[stored.sop_instance_uid] = stored  # newest first: the first received comes last and stands
    for stored in results[:limit]:
        found.setdefault(stored.sop_instance_uid, stored)
    return list(found.values()), len(sources) > limit or len(results) > limit


def _sources(
    session: Session,
    limit: int,
    studies: Sequence[str],
    instances: Sequence[str],
    patients: Sequence[str],
    accessions: Sequence[str],
) -> list[StoredObject]:
    row = InstanceRow
    query = (
        sa.select(
            col(row.digest),
            col(row.transfer_syntax_uid),
            col(row.sop_class_uid),
            col(row.sop_instance_uid),
            col(row.study_instance_uid),
            col(row.issuer),
            col(row.patient_id),
        )
        .where(col(row.state).in_(SHOWN), col(row.media_type) == "application/dicom")
        .order_by(col(row.received_at).desc(), col(row.id))
        .limit(limit + 1)
    )
    for column, wanted in (
        (row.study_instance_uid, studies),
        (row.sop_instance_uid, instances),
        (row.patient_id, patients),
        (row.accession_number, accessions),
    ):
        if wanted:
            query = query.where(col(column).in_(wanted))
    return [
        StoredObject(digest, syntax, sop_class, sop, study, PatientIdentity(issuer, patient))
        for digest, syntax, sop_class, sop, study, issuer, patient in session.execute(query)
    ]


def _results(
    session: Session,
    row: type[ArtifactRow] | type[FormerArtifactRow],
    limit: int,
    studies: Sequence[str],
    instances: Sequence[str],
    patients: Sequence[str],
    accessions: Sequence[str],
) -> list[StoredObject]:
    source = InstanceRow
    query = (
        sa.select(
            col(row.digest),
            col(row.sop_class_uid),
            col(row.uid),
            col(source.id),
            col(source.study_instance_uid),
            col(source.issuer),
            col(source.patient_id),
        )
        .join(AnalysisRow, col(AnalysisRow.id) == col(row.analysis_id))
        .join(source, col(source.id) == col(AnalysisRow.instance_id))
        .where(
            col(row.kind).in_(_KINDS),
            col(row.uid) != "",
            col(source.state).in_(SHOWN),
            col(AnalysisRow.state).in_(READY),
        )
        .order_by(col(AnalysisRow.created_at).desc(), col(row.id))
    )
    if row is ArtifactRow:
        query = query.where(col(ArtifactRow.current))
    if studies:  # the study of a picture is derived from its instance and stands in no column
        query = query.where(col(source.study_instance_uid).in_([*studies, ""]))
    else:
        query = query.limit(limit + 1)
    for column, wanted in (
        (row.uid, instances),
        (source.patient_id, patients),
        (source.accession_number, accessions),
    ):
        if wanted:
            query = query.where(col(column).in_(wanted))
    objects = [
        StoredObject(digest, "", sop_class, uid, study or derive_uid("study", image), PatientIdentity(issuer, patient))
        for digest, sop_class, uid, image, study, issuer, patient in session.execute(query)
    ]
    return [stored for stored in objects if not studies or stored.study_instance_uid in studies]
