"""Jobs that outlive the process that took them: a store on disk, and who works on it."""
