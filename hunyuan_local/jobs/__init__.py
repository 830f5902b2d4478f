"""Durable jobs: a store on disk, and the workers that run them."""
