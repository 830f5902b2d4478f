"""What runs: the scenario, the targets, one run after another."""
