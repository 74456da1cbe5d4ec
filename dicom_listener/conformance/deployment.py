"""What the statement is of: one configuration, and the presentation contexts that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext

from dermoscopy.settings import Settings
from dicom_listener import commitment, query, retrieve
from dicom_listener.deliver import cstore
from dicom_listener.scp import application_entity
from dicom_listener.server import ListenerSettings
from dicom_listener.syntaxes import TRANSFER_SYNTAXES

YES: Final = "Y"
OFF: Final = "O"
NO: Final = "N"


@dataclass(frozen=True, slots=True)
class WebResource:
    """One route of the DICOMweb origin server: method, path template, what it does."""

    method: str
    path: str
    does: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """One configuration. ``resources`` and ``refusals`` (status, title) are those of the HTTP edge."""

    version: str
    settings: Settings
    listener: ListenerSettings
    resources: tuple[WebResource, ...] = ()
    refusals: tuple[tuple[int, str], ...] = ()

    @property
    def sends(self) -> str:
        """Whether results are sent by C-STORE."""
        return YES if self.settings.pacs else OFF

    @property
    def stows(self) -> str:
        return YES if self.settings.stow else OFF

    @property
    def searches(self) -> str:
        """Whether a DICOMweb archive is searched and read."""
        return YES if self.settings.archives else OFF

    @property
    def asks_commitment(self) -> str:
        return YES if any(pacs.commitment for pacs in self.settings.pacs) else OFF

    @property
    def queries(self) -> str:
        return YES if any(pacs.query for pacs in self.settings.pacs) else OFF

    def retrieves(self, how: str) -> str:
        """Whether ``move`` or ``get`` is used."""
        return YES if any(pacs.query and pacs.retrieve == how for pacs in self.settings.pacs) else OFF


@dataclass(frozen=True, slots=True)
class Context:
    """The presentation contexts of one abstract syntax. ``sets``: letters of transfer syntax sets."""

    uid: str
    sets: str
    scu: bool
    scp: bool

    @property
    def name(self) -> str:
        return UID(self.uid).name


class Contexts:
    """Everything that is accepted and proposed, as the code gives it to pynetdicom."""

    def __init__(self, deployment: Deployment) -> None:
        self._sets: dict[tuple[str, ...], str] = {}
        self.accepted = self._read(application_entity(deployment.listener).supported_contexts, acceptor=True)
        self.stored = self._read(cstore.proposed_contexts())
        self.found = self._read(query.find_contexts())
        self.moved = self._read(retrieve.move_contexts())
        self.got = self._read(retrieve.get_contexts(), both=True)
        self.committed = self._read(commitment.proposed_contexts())

    @property
    def sets(self) -> Mapping[str, Sequence[str]]:
        """Letter → transfer syntaxes in the order in which they are proposed or preferred."""
        return {letter: syntaxes for syntaxes, letter in self._sets.items()}

    def _read(
        self, contexts: Iterable[PresentationContext], *, acceptor: bool = False, both: bool = False
    ) -> list[Context]:
        by_class: dict[str, list[Any]] = {}
        for context in contexts:
            by_class.setdefault(str(context.abstract_syntax), []).append(context)
        found = []
        for uid, members in by_class.items():
            several = [tuple(map(str, one.transfer_syntax)) for one in members]
            plain = [one for one in several if len(one) > 1]
            single = tuple(one[0] for one in several if len(one) == 1)
            labels = [self._letter(one) for one in plain]
            if single:
                labels.append(f"{self._letter(single)} (a context for each)")
            storage = both and uid != retrieve.STUDY_ROOT_GET
            found.append(
                Context(
                    uid,
                    ", ".join(labels),
                    scu=any(one.scu_role for one in members) if acceptor else not storage,
                    scp=all(one.scp_role is not False for one in members) if acceptor else storage,
                )
            )
        return found

    def _letter(self, syntaxes: tuple[str, ...]) -> str:
        return self._sets.setdefault(syntaxes, chr(ord("A") + len(self._sets)))


def syntax_name(uid: str) -> str:
    """Our name of a transfer syntax, else the standard's."""
    return TRANSFER_SYNTAXES.get(uid) or UID(uid).name
