"""What every process of a deployment has open: settings, database, object store, audit log, work queue, intake."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from dermoscopy.database import UnitOfWork
from dermoscopy.domain import ModelReference
from dermoscopy.intake import Intake
from dermoscopy.patients import IssuerMap
from dermoscopy.ports import AuditLog, BlobStore, WorkQueue
from dermoscopy.settings import Settings


@dataclass(frozen=True, slots=True)
class Node:
    """Open resources of one process, made by `cds_service.bootstrap.open_node`."""

    settings: Settings
    engine: sa.Engine
    begin: UnitOfWork
    blobs: BlobStore
    audit: AuditLog
    queue: WorkQueue
    intake: Intake
    issuers: IssuerMap
    champion: ModelReference
