"""What counts: the rows of a bench, the machine they belong to, and their statistics."""
