"""Tests, and the environment of their processes: Ray's sessions on loopback, behind a token; threads that wait asleep.

Here because it comes before everything else: Ray and OpenMP read the environment when they are loaded. A process that
a test starts has it already, and with it the token that lets it join.
"""

from __future__ import annotations

import os

from pipeline.cluster.private_ray import private_environment

if "RAY_AUTH_TOKEN" not in os.environ:
    os.environ.update(private_environment())
os.environ.update(
    {
        "RAY_worker_niceness": "0",  # Ray's own is 15, which on a busy machine is next to nothing
        "RAY_prestart_worker_first_driver": "0",  # that is a process for each core, before anybody asks for one
    }
)
os.environ.pop("RAY_ADDRESS", None)
# By default threads of OpenMP spin while they wait for each other: where all cores are busy, for seconds a process.
os.environ["OMP_WAIT_POLICY"] = "passive"
# The threads of numpy's products always spin.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
