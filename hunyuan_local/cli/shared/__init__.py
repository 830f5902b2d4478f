"""What several commands share: options, the terminal, the pool of workers, the server."""
