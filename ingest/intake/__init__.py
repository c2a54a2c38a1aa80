"""The HTTP intake, `ingest serve`: the vendors' own calls, whose bodies become objects in the landing bucket.

A process of its own. It judges nothing and knows no warehouse: what it stores is a source file like any other.
"""
