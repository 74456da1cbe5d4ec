"""Earlier images pulled by themselves when a new one comes (`pull_priors`): a durable workflow beside the analysis.

The analysis of the new image never waits for it, and no sender gets another answer because of it. One patient is looked
up once a day; what comes back by C-MOVE starts nothing anew, since its day has been started.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import sqlalchemy.exc
import structlog

from cds_service.node import Node
from cds_service.steps import ACTOR, hold
from dermoscopy.domain import ImageHeader, PatientIdentity, derive_id
from dermoscopy.errors import Misconfigured, Rejected, Unavailable
from dermoscopy.intake import Receipt
from dermoscopy.tables import InstanceRow, utc_now
from dermoscopy.workqueue import PULL

log = structlog.get_logger(__name__)

SETTLING_SECONDS = 30.0
"""The rest of the new study usually comes meanwhile, and is then not asked for."""
MAX_ATTEMPTS = 12
"""How often a source that is away is asked before a person decides."""
INCOMPLETE_ATTEMPTS = 3
"""How often it is asked for what did not come although it answered."""
_REMEMBERED = 10_000


class Priors:
    """Starts pulls for what a listener process takes in; safe to call from many threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._started: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def start(self, receipt: Receipt, header: ImageHeader) -> None:
        """Start the pull of this patient and day unless it was; a database that fails does not fail the image."""
        source = self._node.settings.pull_priors
        patient = self._node.issuers.canonical(header.patient)
        if not source or receipt.duplicate or not receipt.analysis_id or not patient.known:
            return
        pull_id = derive_id("priors", source, patient.issuer, patient.patient_id, f"{utc_now():%Y%m%d}")
        with self._lock:
            if pull_id in self._started:
                return
        try:
            with self._node.begin() as session:
                self._node.queue.start(
                    session, PULL, f"{pull_id}:1", receipt.instance_id, pull_id, "1", delay_seconds=SETTLING_SECONDS
                )
        except sqlalchemy.exc.SQLAlchemyError as error:  # the image is safe; its successor starts the pull
            log.error("priors.not_started", instance_id=receipt.instance_id, error=type(error).__name__)
            return
        with self._lock:
            self._started[pull_id] = None
            while len(self._started) > _REMEMBERED:
                self._started.popitem(last=False)


class PriorPulls:
    """Makes the pulls, in a worker."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def attempt(self, instance_id: str, pull_id: str, attempt: int) -> None:
        """One attempt; a source that is away is tried again after a pause, what stays wrong is left to a person."""
        from cds_service.pull import Asked, pull

        node, settings = self._node, self._node.settings
        source = settings.pull_priors
        if not source:
            log.info("priors.switched_off", instance_id=instance_id)
            return
        with node.begin() as session:
            row = session.get_one(InstanceRow, instance_id)
            patient = PatientIdentity(row.issuer, row.patient_id)
        try:
            done = pull(node, Asked(patient, source), actor=ACTOR)
        except Unavailable as error:
            self._retry(instance_id, pull_id, attempt, error)
        except (Rejected, Misconfigured) as error:
            self.hold(instance_id, str(error))
        else:
            if done.other_patient or done.misfiled:
                self.hold(
                    instance_id, f"{source} answered with images of another patient: the audit log has the numbers"
                )
            elif done.failed and attempt < INCOMPLETE_ATTEMPTS:
                self._again(instance_id, pull_id, attempt, settings.delivery_backoff_limit_seconds)
            elif done.failed:
                self.hold(instance_id, f"{done.failed} earlier images of {source} did not come, or were refused here")

    def hold(self, instance_id: str, reason: str) -> None:
        """Leave it to a person."""
        with self._node.begin() as session:
            hold(session, "priors_not_pulled", instance_id, reason)

    def _retry(self, instance_id: str, pull_id: str, attempt: int, error: Unavailable) -> None:
        if attempt >= MAX_ATTEMPTS:
            self.hold(instance_id, f"given up after {attempt} attempts: {error}")
            return
        settings = self._node.settings
        pause = min(settings.delivery_backoff_limit_seconds, settings.delivery_backoff_seconds * 2**attempt)
        pause = max(pause, error.retry_after or 0.0)
        self._again(instance_id, pull_id, attempt, pause)

    def _again(self, instance_id: str, pull_id: str, attempt: int, pause: float) -> None:
        with self._node.begin() as session:
            following = attempt + 1
            self._node.queue.start(
                session, PULL, f"{pull_id}:{following}", instance_id, pull_id, str(following), delay_seconds=pause
            )
