"""Tests, and the environment of their Ray sessions: on loopback, behind a token.

Here because it comes before everything else: Ray reads the environment when it is imported. A process that a test
starts has it already, and with it the token that lets it join.
"""

from __future__ import annotations

import os

from pipeline.cluster.private_ray import private_environment

if "RAY_AUTH_TOKEN" not in os.environ:
    os.environ.update(private_environment())
os.environ.update({"RAY_worker_niceness": "0"})  # Ray's own is 15, which on a busy machine is next to nothing
os.environ.pop("RAY_ADDRESS", None)
