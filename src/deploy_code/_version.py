"""The version, in a file of its own: reading package metadata costs 76 ms, this costs nothing."""

__version__ = "0.1.0"
