"""A database as it is after years: many stored analyses of many patients, put there without analysing anything."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from audit.log import MerkleAuditLog
from audit.sequencer import sequence_all
from benchmarks.bare_loop import analysed, open_algorithm, read
from cds_service.bootstrap import open_audit_signer
from cds_service.schema import migrate
from dermoscopy.analyses import save_finding
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.domain import Analysis, derive_id, derive_uid
from dermoscopy.ports import AuditEntry
from dermoscopy.settings import Settings
from dermoscopy.tables import AnalysisRow, InstanceRow, utc_now
from dicom_listener.decode import decode
from tests.service import ISSUER

CHUNK = 500


def example_analyses(settings: Settings, files: list[Path]) -> list[Analysis]:
    """Real findings of the deployed model, to be copied under many identities."""
    algorithm = open_algorithm(settings)
    sources = [read(file) for file in files]
    return [analysed(algorithm, source, decode(source)) for source in sources]


def patient_of(number: int, analyses_per_patient: int) -> str:
    """Patient id of the stored analysis ``number``."""
    return f"STORED-{number // analyses_per_patient:05d}"


def fill(settings: Settings, examples: list[Analysis], count: int, *, analyses_per_patient: int) -> None:
    """Migrate the database of ``settings`` and store ``count`` analyses, each with a leaf in the audit tree."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_database_engine(settings.resolved_database_url)
    try:
        migrate(engine)
        begin = unit_of_work(engine)
        templates = [_template(engine, example) for example in examples]
        audit = MerkleAuditLog()
        for start in range(0, count, CHUNK):
            instances, analyses = [], []
            for number in range(start, min(start + CHUNK, count)):
                instance, analysis = _copy(templates[number % len(templates)], number, analyses_per_patient)
                instances.append(instance)
                analyses.append(analysis)
            with begin() as session:
                session.execute(sa.insert(InstanceRow), instances)
                session.execute(sa.insert(AnalysisRow), analyses)
                for row in analyses:
                    audit.append(session, AuditEntry("analysis.completed", "pipeline", "analysis", str(row["id"])))
        sequence_all(engine, open_audit_signer(settings))
    finally:
        engine.dispose()


def instances(engine: sa.Engine) -> int:
    """How many images a database holds."""
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM instance")).scalar_one())


def patient_of_copy(number: int, copy: int, analyses_per_patient: int) -> str:
    """Patient id of the copy ``copy`` (0 is the original) of the stored analysis ``number``, as `multiply` names it."""
    patient = patient_of(number, analyses_per_patient)
    return f"{patient}-{copy:012d}" if copy else patient


def multiply(engine: sa.Engine, times: int) -> None:
    """Make ``times`` of every stored analysis, each copy of patients of its own; the copies have no audit leaf."""
    if times < 2:
        return
    postgres = engine.dialect.name == "postgresql"
    numbered = "lpad(n.n::text, 12, '0')" if postgres else "printf('%012d', n.n)"
    numbers = f"WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {times - 1})"
    another = {
        "id": f"substr(o.id, 1, 24) || {numbered}",
        "instance_id": f"substr(o.instance_id, 1, 24) || {numbered}",
        "patient_id": f"o.patient_id || '-' || {numbered}",
        "sop_instance_uid": "o.sop_instance_uid || '.' || n.n",
        "study_instance_uid": "o.study_instance_uid || '.' || n.n",
    }
    with engine.begin() as connection:
        for table in (InstanceRow, AnalysisRow):
            names = [column.name for column in sa.inspect(table).columns]
            values = ", ".join(another.get(name, f"o.{name}") for name in names)
            into = f"{table.__tablename__} ({', '.join(names)})"
            connection.execute(sa.text(f"INSERT INTO {into} {numbers} SELECT {values} FROM {table.__tablename__} o, n"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


Row = dict[str, object]


def _template(engine: sa.Engine, analysis: Analysis) -> tuple[Row, Row]:
    """The rows that the pipeline would have written for ``analysis``."""
    header, model = analysis.header, analysis.finding.model
    instance = InstanceRow(
        id=analysis.instance_id,
        digest=analysis.pixel_digest,
        size=analysis.rows * analysis.columns * 3,
        source="cstore",
        caller="BENCH",
        received_at=analysis.created_at,
        state="accepted",
        media_type=header.media_type,
        issuer=ISSUER,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        rows=analysis.rows,
        columns=analysis.columns,
        body_site_code=header.body_site_code,
        laterality=header.laterality,
    )
    row = AnalysisRow(
        id=analysis.id,
        instance_id=analysis.instance_id,
        issuer=ISSUER,
        state="queued",
        created_at=analysis.created_at,
        model_name=model.name,
        model_version=model.version,
        model_digest=model.digest,
    )
    with Session(engine) as session:
        session.add(instance)
        session.flush()
        session.add(row)
        session.flush()
        save_finding(session, analysis, milliseconds=100.0)
        rows = instance.model_dump(), row.model_dump()
        session.rollback()
    return rows[0], {**rows[1], "state": "complete", "completed_at": analysis.created_at}


def _copy(template: tuple[Row, Row], number: int, analyses_per_patient: int) -> tuple[Row, Row]:
    instance, analysis = template
    patient_id = patient_of(number, analyses_per_patient)
    instance_id = derive_id("stored-instance", str(number))
    at = utc_now() - timedelta(minutes=number)
    names = {
        "id": instance_id,
        "digest": f"{number:064x}",
        "patient_id": patient_id,
        "received_at": at,
        "sop_instance_uid": derive_uid("stored", str(number)),
        "study_instance_uid": derive_uid("stored-study", patient_id),
        "series_instance_uid": derive_uid("stored-series", str(number)),
    }
    return {**instance, **names}, {
        **analysis,
        "id": derive_id("stored-analysis", str(number)),
        "instance_id": instance_id,
        "patient_id": patient_id,
        "created_at": at,
        "completed_at": at,
    }
