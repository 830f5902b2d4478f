"""One file an architecture: its components, conditions from a prompt, and one prediction."""
