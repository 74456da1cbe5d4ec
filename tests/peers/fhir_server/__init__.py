"""A real FHIR R4 server for tests: an existing router over an atomic repository that survives a crash."""

from tests.peers.fhir_server.server import FhirServer, fhir_server

__all__ = ["FhirServer", "fhir_server"]
