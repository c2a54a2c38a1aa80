"""Landfall: event files dropped in S3, judged line by line, in the warehouse exactly once."""

__version__ = "0.1.0"
