"""Maskmill's pipeline: image shards in, SA-1B-style masks out, once each."""

__version__ = "0.1.0"
"""Written into every part as `code_version`."""
