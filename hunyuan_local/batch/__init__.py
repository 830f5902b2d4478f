"""Batches: many videos from one file. Reads the file, runs and resumes the work, writes the report page."""
