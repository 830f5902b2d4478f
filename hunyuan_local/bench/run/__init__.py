"""Running a bench: scenarios, targets, and one run after another."""
