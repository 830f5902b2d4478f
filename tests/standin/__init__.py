"""A stand-in for two hosted video services, WaveSpeedAI and Novita, for the contract tests of their clients.

Written from the services' API pages alone: it imports nothing of the package under test, so that a page
misread there is not misread here in the same way. It makes no video; every finished task hands out the bytes
that it was given. Left out are sync mode, base64 outputs, lists, balance and webhooks.
"""

from __future__ import annotations

from .clip import sample_video
from .faults import FAULTS
from .server import StandIn, Submission

__all__ = ["FAULTS", "StandIn", "Submission", "sample_video"]
