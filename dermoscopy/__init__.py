"""The ground that every room shares: domain types, codes, errors, ports, settings, database, intake.

Nothing in here speaks HTTP, DICOM, FHIR or ONNX.
"""
