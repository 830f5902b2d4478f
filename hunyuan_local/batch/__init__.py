"""Many videos from one file: the file read, the work done and resumed, a page that shows it."""
