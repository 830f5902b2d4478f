"""The web page of a server: a form, the video as it is made, those made before, and the same request as code."""
