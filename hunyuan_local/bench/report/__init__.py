"""Reports of a bench: tables, plots and comparisons."""
