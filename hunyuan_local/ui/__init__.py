"""The server's web page: a form, live progress, past videos, and requests as code."""
