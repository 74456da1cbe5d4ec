"""Tamper-evident audit trail: append-only leaves in a Merkle tree (RFC 6962) with signed tree heads."""
