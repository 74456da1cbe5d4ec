"""Who is who: DICOM issuer and patient id ↔ FHIR identifier system and value, unambiguous both ways.

The FHIR patient is matched by identifier system + value to DICOM issuer + patient id; ambiguous means no card and a
hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class IssuerMap:
    """Issuer of Patient ID (0010,0021) ↔ FHIR identifier system. What it does not list passes through as itself.

    Raises `Misconfigured` for a table that could match two patients, naming the row.
    """

    systems: Mapping[str, str] = field(default_factory=dict)
    """Issuer → FHIR identifier system."""
    default_issuer: str = ""
    """Issuer of objects that name none; empty leaves those unmatched."""
    issuer_of_system: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """FHIR identifier system → issuer."""

    def __post_init__(self) -> None:
        systems = {issuer.strip(): system.strip() for issuer, system in self.systems.items()}
        if len(systems) != len(self.systems) or not all(systems) or not all(systems.values()):
            raise Misconfigured("issuers: every row needs an issuer and a FHIR identifier system, each issuer once")
        issuers: dict[str, str] = {}
        for issuer, system in systems.items():
            if system in issuers:
                raise Misconfigured(
                    f"issuers: {issuers[system]!r} and {issuer!r} both map to {system!r}; two patients could become one"
                )
            if systems.get(system, system) != system:
                raise Misconfigured(
                    f"issuers: {system!r} is the FHIR system of {issuer!r} and itself an issuer with another system"
                )
            issuers[system] = issuer
        object.__setattr__(self, "systems", MappingProxyType(systems))
        object.__setattr__(self, "default_issuer", self.default_issuer.strip())
        object.__setattr__(self, "issuer_of_system", MappingProxyType(issuers))

    def system_of(self, issuer: str) -> str:
        """FHIR identifier system of an issuer; empty if the object names none and there is no default."""
        named = issuer.strip() or self.default_issuer
        return self.systems.get(named, named)

    def issuer_of(self, system: str) -> str:
        """DICOM issuer of a FHIR identifier system; the system itself if the table does not list it."""
        return self.issuer_of_system.get(system.strip(), system.strip())

    def canonical(self, identity: PatientIdentity) -> PatientIdentity:
        """The identity under the one name of its issuer: default filled in, a FHIR system turned into its issuer."""
        return PatientIdentity(self.issuer_of(identity.issuer.strip() or self.default_issuer), identity.patient_id)
