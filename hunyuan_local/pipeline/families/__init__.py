"""One file per kind of architecture: its components, the conditions from a prompt and an image, and one prediction."""
