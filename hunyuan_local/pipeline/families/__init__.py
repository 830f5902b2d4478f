"""One file per architecture: its components, the conditions from a prompt, and one prediction."""
