"""CDS Hooks 2.0 (https://cds-hooks.hl7.org/2.0/): stored results as cards in the clinician's workflow."""
