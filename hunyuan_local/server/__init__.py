"""The HTTP server: a job store behind the formats of WaveSpeed, Novita and OpenAI."""
