"""One video over several GPUs: a process for each, started and followed from here."""
