"""Three FHIR R4 4.0.1 validators of different makers behind one function; each sees what another misses."""

from tests.peers.fhir_validators.validation import R4Validators, r4_validators

__all__ = ["R4Validators", "r4_validators"]
