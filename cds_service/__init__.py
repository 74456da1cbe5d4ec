"""The roof: edges (HTTP, command line), the pipeline, and the one place where rooms are joined."""
