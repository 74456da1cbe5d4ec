"""Pages for people, rendered on the server. They load nothing from elsewhere and need no script."""
