"""An association on which we ask a PACS for something: opened for one question, released afterwards.

Used by `query` (C-FIND) and `retrieve` (C-MOVE, C-GET). Results are sent by `deliver.cstore`, which keeps its
association open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dermoscopy.errors import DestinationUnavailable, Rejected
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.tls import ClientContext, ReloadedContext

AWAY_SECONDS: Final = 5.0
"""Pause before a PACS that gave no answer is asked again."""
BUSY_SECONDS: Final = 30.0
"""Pause before a PACS that is out of resources is asked again."""


@dataclass(frozen=True, slots=True)
class PacsAddress:
    """Where a PACS is and how we call; ``timeout`` in seconds, for each answer."""

    name: str
    host: str
    port: int
    called_ae: str
    calling_ae: str
    tls: ReloadedContext[ClientContext] | None = None
    timeout: float = 60.0
    max_pdu: int = 131072


@contextmanager
def associated(
    pacs: PacsAddress,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
) -> Iterator[Association]:
    """An established association with ``pacs``, released at the end and aborted when the block raises.

    Raises `DestinationUnavailable` (no association, or it ended) and `Rejected` (none of ``contexts`` is accepted).
    """
    _config.LOG_HANDLER_LEVEL = "none"  # as the listener: identifiers are patient data
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    entity = AE(ae_title=pacs.calling_ae)
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.connection_timeout = entity.dimse_timeout = pacs.timeout
    entity.network_timeout = pacs.timeout + 30
    secured = pacs.tls.current() if pacs.tls is not None else None
    if secured is not None:
        secured.failure = ""
    association = entity.associate(
        pacs.host,
        pacs.port,
        contexts=list(contexts),
        ae_title=pacs.called_ae,
        max_pdu=pacs.max_pdu,
        ext_neg=list(roles),
        evt_handlers=list(handlers),
        tls_args=(secured, pacs.host) if secured is not None else None,
    )
    if not association.is_established:
        if secured is not None and secured.failure:
            why = f"cannot be reached by TLS: {secured.failure}"
            raise DestinationUnavailable(f"{pacs.name} {why}", retry_after=AWAY_SECONDS)
        if association.is_aborted and association.acceptor.primitive is not None:
            raise Rejected(f"{pacs.name} offers none of the services asked for: enable query and retrieve there")
        why = "refused the association" if association.is_rejected else "cannot be reached"
        raise DestinationUnavailable(
            f"{pacs.name} {why}: check address, port and AE titles ({pacs.called_ae})", retry_after=AWAY_SECONDS
        )
    try:
        yield association
    except RuntimeError as error:  # pynetdicom: the association ended between two messages
        association.abort()
        raise DestinationUnavailable(f"{pacs.name} ended the association", retry_after=AWAY_SECONDS) from error
    except BaseException:
        association.abort()
        raise
    else:
        if association.is_established:
            association.release()
