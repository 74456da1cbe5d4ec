"""The REST API: images in, analyses out. Every answer that is not a success is a problem (RFC 9457)."""
