"""Backends for the hosted services WaveSpeedAI and Novita, and for servers compatible with their APIs."""
