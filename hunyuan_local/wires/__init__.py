"""Wire formats: one module per API dialect, with pure functions in both directions.

Field names of a dialect appear only in this folder.
"""
