"""Workers on several machines, through Ray."""
