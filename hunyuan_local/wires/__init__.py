"""Wire formats: one module a dialect, pure functions both ways; field names of a dialect stand here alone."""
