"""The only room that knows FHIR: EHR resources in, an R4 transaction bundle out (https://hl7.org/fhir/R4/)."""
