"""What is reported: tables, plots and comparisons of what a bench has measured."""
