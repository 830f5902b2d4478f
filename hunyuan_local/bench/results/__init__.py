"""Results of a bench: its rows, the machine they were measured on, and their statistics."""
