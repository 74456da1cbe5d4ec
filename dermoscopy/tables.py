"""Rows that several rooms share (SQLModel). Never called models: that word belongs to the algorithms.

Times are UTC. Patient identity stands in columns of its own, never inside free text.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Time zone aware UTC on both databases (SQLite forgets the zone)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime: give a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class InstanceRow(SQLModel, table=True):
    """One image of one patient, as accepted. ``state``: ``accepted``, ``stored`` (kept, not analysed) or ``held``."""

    __tablename__ = "instance"
    __table_args__ = (sa.Index("ix_instance_patient", "issuer", "patient_id"),)

    id: str = Field(primary_key=True)
    digest: str = Field(index=True)
    size: int
    source: str
    caller: str
    received_at: datetime = Field(sa_type=UtcDateTime)
    state: str
    media_type: str
    issuer: str = ""
    patient_id: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = Field(default="", index=True)
    study_instance_uid: str = Field(default="", index=True)
    series_instance_uid: str = ""
    accession_number: str = ""
    transfer_syntax_uid: str = ""
    rows: int
    columns: int
    body_site_code: str = ""
    laterality: str = ""
    trace: str = ""
    """W3C traceparent of the request that brought it, so that one trace spans receive → deliver."""
    route: str = Field(default="", sa_type=sa.Text, sa_column_kwargs={"server_default": ""})
    """What was decided at the door (`dermoscopy.routing.Route`); empty: analyse it, send everything everywhere."""


class AnalysisRow(SQLModel, table=True):
    """One run of one model on one instance. ``state``: queued → analysed → rendered → complete, or failed."""

    __tablename__ = "analysis"
    __table_args__ = (
        sa.Index("ix_analysis_patient", "issuer", "patient_id", "created_at"),
        sa.Index("ix_analysis_created", "created_at"),
        sa.Index("ix_analysis_worklist", "tier", "report_status", "created_at"),
        sa.Index(
            "ix_analysis_failed",
            "created_at",
            sqlite_where=sa.text("state = 'failed'"),
            postgresql_where=sa.text("state = 'failed'"),
        ),
        sa.Index(
            "ix_analysis_queued",
            "state",
            sqlite_where=sa.text("state = 'queued'"),
            postgresql_where=sa.text("state = 'queued'"),
        ),
    )

    id: str = Field(primary_key=True)
    instance_id: str = Field(foreign_key="instance.id", index=True)
    issuer: str = ""
    patient_id: str = ""
    state: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    """When the image was accepted for this model; results carry it as their content time."""
    completed_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    model_name: str
    model_version: str
    model_digest: str
    tier: str = ""
    primary_class: str = ""
    confidence: float | None = None
    melanoma_risk: float | None = None
    abstention: str = ""
    document: str = Field(default="", sa_type=sa.Text)
    """The whole `Analysis` as JSON (arrays apart)."""
    embedding: bytes = b""
    """float32 little endian."""
    error: str = ""
    milliseconds: float | None = None
    reviews: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How many reviews there are: who writes the next one says how many were seen."""
    report_status: str = Field(default="preliminary", sa_column_kwargs={"server_default": "preliminary"})
    rendered_revision: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Which revision of the report the outputs show: behind the reviews for as long as an amendment is under way."""


class ReviewRow(SQLModel, table=True):
    """One clinician's word on one analysis (`dermoscopy.domain.Review`); never changed."""

    __tablename__ = "review"
    __table_args__ = (sa.UniqueConstraint("analysis_id", "revision"),)

    id: str = Field(primary_key=True)
    analysis_id: str = Field(foreign_key="analysis.id", index=True)
    revision: int
    at: datetime = Field(sa_type=UtcDateTime)
    reviewer: str
    reviewer_name: str = ""
    verdict: str
    lesion_class: str = ""
    outline: str = Field(default="", sa_type=sa.Text)
    """JSON: list of [column, row]."""
    body_site_code: str = ""
    laterality: str = ""
    comment: str = Field(default="", sa_type=sa.Text)


class ArtifactRow(SQLModel, table=True):
    """One stored output of an analysis."""

    __tablename__ = "artifact"
    __table_args__ = (sa.UniqueConstraint("analysis_id", "kind"),)

    id: str = Field(primary_key=True)
    analysis_id: str = Field(foreign_key="analysis.id", index=True)
    kind: str
    media_type: str
    digest: str
    size: int
    uid: str = Field(default="", index=True)
    sop_class_uid: str = ""
    current: bool = Field(default=True, sa_column_kwargs={"server_default": sa.true()})
    """False when it was withdrawn and nothing came in its place: kept, but no longer offered or sent."""


class FormerArtifactRow(SQLModel, table=True):
    """An output that a later one replaced or that was withdrawn; its bytes stay, and can be had by its UID."""

    __tablename__ = "former_artifact"

    id: str = Field(primary_key=True)
    analysis_id: str = Field(foreign_key="analysis.id", index=True)
    revision: int
    """Of the report, when it was still current."""
    kind: str
    media_type: str
    digest: str
    size: int
    uid: str = Field(default="", index=True)
    sop_class_uid: str = ""
    replaced_at: datetime = Field(sa_type=UtcDateTime)


class DeliveryRow(SQLModel, table=True):
    """One artifact on its way to one destination, retried alone."""

    __tablename__ = "delivery"

    id: str = Field(primary_key=True)
    analysis_id: str = Field(foreign_key="analysis.id", index=True)
    artifact_id: str = Field(foreign_key="artifact.id")
    destination: str
    kind: str
    state: str = Field(index=True)
    attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    reference: str = ""
    last_error: str = ""
    uid: str = Field(default="", sa_column_kwargs={"server_default": ""})
    digest: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """Of the artifact as it was when this delivery was started; an amended artifact gets a delivery of its own."""
    commitment: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """`dermoscopy.domain.CommitmentState`; empty where the destination is not asked for commitment."""
    commitment_id: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """The latest transaction that asks about it."""
    asked_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    committed_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    unconfirmed: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How often it was stored there and not confirmed."""


class ResultCommitmentRow(SQLModel, table=True):
    """A storage commitment that we ask a PACS for: one transaction about results of one analysis.

    ``state``: pending → asked → reported, or unreported, not_taken, refused, dropped.
    """

    __tablename__ = "result_commitment"

    id: str = Field(primary_key=True)
    transaction_uid: str = Field(unique=True)
    """Drawn at random: whoever was not asked cannot guess it."""
    analysis_id: str = Field(foreign_key="analysis.id", index=True)
    destination: str
    peer: str = ""
    """AE title that was asked, and that may report."""
    asked_for: str = Field(sa_type=sa.Text)
    """JSON: list of [delivery id, SOP Class UID, SOP Instance UID]."""
    state: str
    attempts: int = 0
    created_at: datetime = Field(sa_type=UtcDateTime)
    asked_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    reported_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    last_error: str = ""


class CommitmentRow(SQLModel, table=True):
    """A storage commitment that a sender asked for, and how far its report is; ``state`` as of a delivery."""

    __tablename__ = "commitment"

    id: str = Field(primary_key=True)
    transaction_uid: str
    caller: str
    address: str
    asked_for: str = Field(sa_type=sa.Text)
    """JSON: list of [SOP Class UID, SOP Instance UID]."""
    state: str
    attempts: int = 0
    requested_at: datetime = Field(sa_type=UtcDateTime)
    next_attempt_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    reported_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    last_error: str = ""


class ClientTokenRow(SQLModel, table=True):
    """A signed call of an EHR that was let in, kept until its token expires, so that no token is used twice."""

    __tablename__ = "client_token"

    id: str = Field(primary_key=True)
    """SHA-256 of issuer and ``jti``."""
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class LoginRow(SQLModel, table=True):
    """A person who is logged in to the pages; removed when the login ends."""

    __tablename__ = "login"

    id: str = Field(primary_key=True)
    """SHA-256 of the cookie's value, which is kept nowhere."""
    name: str
    """``issuer|subject``, or the name of the API token."""
    full_name: str = ""
    role: str
    patients: str = Field(default="", sa_type=sa.Text)
    """JSON list of [issuer, patient id] that an EHR launch is for; empty: any patient."""
    created_at: datetime = Field(sa_type=UtcDateTime)
    seen_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class CardShownRow(SQLModel, table=True):
    """A card that was given to a user, so that the same finding is not shown to them twice in one encounter."""

    __tablename__ = "card_shown"

    id: str = Field(primary_key=True)
    """SHA-256 of client, FHIR server, user, encounter (or day) and what the card says; holds none of them."""
    card: str = Field(index=True)
    """``uuid`` of the card."""
    service: str
    analysis_id: str
    """Empty for cards about no single analysis."""
    hook_instance: str
    """SHA-256 of the ``hookInstance`` that was answered with it: a repeat of that call gets it again."""
    shown_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class CardFeedbackRow(SQLModel, table=True):
    """What a user did with a card. ``comment`` may say anything about anybody: it stands here and nowhere else."""

    __tablename__ = "card_feedback"

    id: str = Field(primary_key=True)
    service: str
    card: str = Field(index=True)
    analysis_id: str = ""
    """What the card was about; empty where the card is not known (any more) or is about no single analysis."""
    known: bool
    """Whether this service remembers giving the card."""
    outcome: str
    outcome_at: datetime = Field(sa_type=UtcDateTime)
    received_at: datetime = Field(sa_type=UtcDateTime, index=True)
    caller: str
    suggestions: str = Field(default="[]", sa_type=sa.Text)
    """JSON: list of the ids of accepted suggestions."""
    reason_system: str = ""
    reason_code: str = ""
    comment: str = Field(default="", sa_type=sa.Text)


class ChartImageRow(SQLModel, table=True):
    """An image of a chart that was taken in or refused, so that it is not fetched again at every call."""

    __tablename__ = "chart_image"

    id: str = Field(primary_key=True)
    """SHA-256 of server, resource and where its bytes are."""
    instance_id: str = ""
    """What it became; empty where it was refused."""
    reason: str = ""
    """Why it was refused."""
    at: datetime = Field(sa_type=UtcDateTime)


class LesionImageRow(SQLModel, table=True):
    """When an analysed image was taken, and which lesion its source says that it shows (`dermoscopy.lesions`)."""

    __tablename__ = "lesion_image"
    __table_args__ = (sa.Index("ix_lesion_image_patient", "issuer", "patient_id"),)

    analysis_id: str = Field(primary_key=True, foreign_key="analysis.id")
    issuer: str = ""
    patient_id: str = ""
    taken_at: datetime = Field(sa_type=UtcDateTime)
    dated: bool
    """Whether the source states it; else it is when the image was received."""
    tracking_uid: str = ""


class LesionChangeRow(SQLModel, table=True):
    """What changed of a lesion since an earlier image; made anew when an earlier image arrives later."""

    __tablename__ = "lesion_change"

    analysis_id: str = Field(primary_key=True, foreign_key="analysis.id")
    prior_id: str = Field(default="", index=True)
    """Analysis of the earlier image; empty where nothing could be compared."""
    state: str
    """`dermoscopy.lesions.MatchState`."""
    made_at: datetime = Field(sa_type=UtcDateTime)
    document: str = Field(sa_type=sa.Text)
    """The whole `dermoscopy.lesions.Change` as JSON."""


class OutcomeRow(SQLModel, table=True):
    """What was found out of a lesion (`dermoscopy.outcomes.Outcome`), as it stands; earlier versions stand apart."""

    __tablename__ = "outcome"
    __table_args__ = (sa.Index("ix_outcome_patient", "issuer", "patient_id"),)

    id: str = Field(primary_key=True)
    source_key: str = Field(index=True)
    """SHA-256 of origin, type and id of the resource."""
    business_key: str = Field(default="", index=True)
    """SHA-256 of type and business identifier; empty where it has none."""
    part: str
    """Which finding of the resource: a report may be about several specimens."""
    origin: str
    """Server that was asked, or API token that sent it."""
    resource_type: str
    resource_id: str = ""
    version: str
    version_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    status: str
    state: str = Field(index=True)
    """`dermoscopy.outcomes.OutcomeState`."""
    reason: str = ""
    """Why it is held."""
    analysis_id: str = Field(default="", index=True)
    """Empty until it is matched."""
    matched_by: str = ""
    """``report``, ``accession``, ``site``, or ``person``."""
    assigned_by: str = ""
    issuer: str = ""
    patient_id: str = ""
    certainty: str
    lesion_class: str = ""
    malignant: bool | None = None
    diagnosis_system: str = ""
    diagnosis_code: str = ""
    diagnosis: str = ""
    doubt: str = ""
    diagnosed_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    timed: bool = True
    body_site_code: str = ""
    laterality: str = ""
    references: str = Field(default="[]", sa_type=sa.Text)
    """JSON list of accession numbers and identifiers that it names."""
    received_at: datetime = Field(sa_type=UtcDateTime, index=True)


class OutcomeVersionRow(SQLModel, table=True):
    """One version of a resource that told outcomes; never changed, so that it is known what stood when."""

    __tablename__ = "outcome_version"
    __table_args__ = (sa.UniqueConstraint("source_key", "version"),)

    id: str = Field(primary_key=True)
    source_key: str
    version: str
    version_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    digest: str
    """The resource as it came, in the object store."""
    way: str
    """``post`` or ``poll``."""
    caller: str
    received_at: datetime = Field(sa_type=UtcDateTime)
    superseded: bool = False
    """Whether a later version was here already when it came, so that it changed nothing."""
    told: str = Field(default="[]", sa_type=sa.Text)
    """JSON: what it said of each part, without the patient."""


class OutcomeCursorRow(SQLModel, table=True):
    """How far a FHIR server was asked for outcomes."""

    __tablename__ = "outcome_cursor"

    id: str = Field(primary_key=True)
    """Name of the server in the settings, ``|`` and the resource type."""
    cursor: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    """``meta.lastUpdated`` of the newest resource seen."""
    due_at: datetime = Field(sa_type=UtcDateTime)
    leased_until: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    """While one worker asks, no other does."""
    polled_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    """When it last answered."""
    failures: int = 0
    last_error: str = ""


class HoldRow(SQLModel, table=True):
    """Something that waits for a person: no patient id, a UID with other bytes, an ambiguous patient."""

    __tablename__ = "hold"

    id: str = Field(primary_key=True)
    kind: str
    subject_id: str = Field(index=True)
    reason: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    resolved_at: datetime | None = Field(default=None, sa_type=UtcDateTime, nullable=True)
    resolved_by: str = ""
    resolution: str = ""


def utc_now() -> datetime:
    """The present moment, with its time zone."""
    return datetime.now(UTC)
