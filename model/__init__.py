"""Segment Anything in plain torch. Imports nothing else of this project."""
