"""The sub-commands of ``cds``, one file each."""
