"""Programs of other makers that the tests talk to: PACS, FHIR server, validators, DICOM readers, database.

`tests.peers.fixtures` holds the pytest fixtures; every other module works without pytest.
"""
