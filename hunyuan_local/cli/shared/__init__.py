"""Code shared by several commands: options, terminal output, worker pools and the server."""
