"""Maskmill's pipeline: image shards in, SA-1B-style masks out, once each."""
