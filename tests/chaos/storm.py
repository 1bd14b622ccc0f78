"""How bad the weather is: what a chaos run does, and how much of it. The numbers are counted again at the end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Storm:
    """One chaos run. The same seed gives the same images and, as far as processes allow, the same blows.

    Blows fall with the progress of the work, not with the clock, so that all of them fall on any machine.
    """

    seed: int
    chunks: int
    images_per_chunk: int
    nodes: int
    """Beside the head, where the drivers are."""
    cpus_per_node: int
    drivers: int
    """At once, on one OUT."""
    worker_kills: int = 0
    journal_kills: int = 0
    node_kills: int = 0
    """Each is followed by a new node."""
    driver_kills: int = 0
    """Each is followed by the same command."""
    poisons: int = 0
    """Images that kill their process."""
    tar_pits: int = 0
    """Images that keep it for ever."""
    fault_share: float = 0
    """Of the S3 requests."""
    seconds_per_image: float = 0
    """That the fake segmenter sleeps, beside what it computes; without meaning for a real model."""
    real_model: bool = False

    @property
    def images(self) -> int:
        return self.chunks * self.images_per_chunk


LONG = Storm(
    seed=1,
    chunks=100,
    images_per_chunk=20,
    nodes=3,
    cpus_per_node=2,
    drivers=2,
    worker_kills=60,
    journal_kills=2,
    node_kills=4,
    driver_kills=4,
    poisons=3,
    tar_pits=2,
    fault_share=0.25,
    seconds_per_image=0.1,
)
REAL = Storm(
    seed=2,
    chunks=12,
    images_per_chunk=5,
    nodes=2,
    cpus_per_node=1,
    drivers=2,
    worker_kills=8,
    journal_kills=1,
    node_kills=1,
    driver_kills=1,
    fault_share=0.25,
    real_model=True,
)
SHORT = Storm(
    seed=3,
    chunks=12,
    images_per_chunk=4,
    nodes=2,
    cpus_per_node=1,
    drivers=1,
    worker_kills=2,
    journal_kills=1,
    node_kills=1,
    driver_kills=1,
    poisons=1,
    fault_share=0.25,
    seconds_per_image=0.05,
)
OUTAGE = Storm(
    seed=4,
    chunks=20,
    images_per_chunk=4,
    nodes=1,
    cpus_per_node=2,
    drivers=1,
    seconds_per_image=0.1,
)
"""Calm but for what outage.py does."""
STORMS = {"long": LONG, "real": REAL, "short": SHORT}
