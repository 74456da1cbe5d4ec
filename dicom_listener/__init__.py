"""The only room that knows DICOM: receiving, reading, rendering and sending of DICOM objects."""
