"""Measurements of the service beside what others do on the same files: `make bench`, docs/benchmarks.md."""
