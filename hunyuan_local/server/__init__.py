"""The HTTP server: the hosted services' formats and the OpenAI-style one, in front of a job store."""
