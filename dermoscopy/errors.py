"""The error tree. Retry is decided by type, never by text; wire codes live at the edges.

::

    DermoscopyError
    ├ Rejected               permanent: the same input will be refused again
    │ ├ UnreadableObject       not an image, truncated, no pixel data
    │ ├ UnsupportedTransferSyntax
    │ ├ UnsupportedSopClass
    │ ├ UnsupportedImage       too small, too large, decompression bomb
    │ ├ NotDermoscopic         a modality or object that is not a dermoscopic image
    │ └ UnknownPatient         the addressee has no such patient, or more than one
    ├ Unavailable            transient: carries ``retry_after`` in seconds
    │ ├ DestinationUnavailable
    │ ├ StorageFull
    │ └ ModelServerBusy
    ├ AnalysisFailed         the algorithm broke on an accepted image
    ├ Misconfigured          a setting is wrong: the service refuses to start
    └ IntegrityViolation     stop the line
      ├ WeightsMismatch        a model file is not what its manifest says
      ├ BlobCorrupted          stored bytes no longer have their digest
      └ AuditLogTampered       the log was changed after the fact

Messages say what is wrong and what to do, and carry no patient data.
"""

from __future__ import annotations


class DermoscopyError(Exception):
    """Root of every error this project raises on purpose; ``str(error)`` may be shown to a person."""


class Rejected(DermoscopyError):
    """Permanent: the same input will be refused again."""


class UnreadableObject(Rejected):
    """The bytes are not an image that can be read (wrong format, truncated, no pixel data)."""


class UnsupportedTransferSyntax(Rejected):
    """The encoding is known but no decoder for it is installed."""


class UnsupportedSopClass(Rejected):
    """The DICOM object is of a class this service does not take."""


class UnsupportedImage(Rejected):
    """A readable image that cannot be analysed: too small, too large, an unknown pixel format."""


class NotDermoscopic(Rejected):
    """The object says of itself that it is not a dermoscopic image."""


class UnknownPatient(Rejected):
    """The addressee knows no such patient, or more than one: a person must decide."""


class Unavailable(DermoscopyError):
    """Transient: worth trying again after ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DestinationUnavailable(Unavailable):
    """A PACS or FHIR server did not answer, or asked us to come back later."""


class StorageFull(Unavailable):
    """The object store has no room: nothing was kept, the sender must keep its copy."""


class ModelServerBusy(Unavailable):
    """The inference backend cannot take the image now."""


class AnalysisFailed(DermoscopyError):
    """The algorithm broke on an accepted image; the image is kept and the failure is visible."""


class Misconfigured(DermoscopyError):
    """A setting is wrong: the service says which one and refuses to start."""


class IntegrityViolation(DermoscopyError):
    """Something that must never change has changed: stop the line."""


class WeightsMismatch(IntegrityViolation):
    """A model file does not have the digest its manifest states."""


class BlobCorrupted(IntegrityViolation):
    """Stored bytes no longer match their content address."""


class AuditLogTampered(IntegrityViolation):
    """The audit log was changed, shortened or reordered after the fact."""
