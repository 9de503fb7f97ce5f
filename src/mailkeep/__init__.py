"""Mailkeep: one mail store with every door."""

__version__ = "0.1.0"
