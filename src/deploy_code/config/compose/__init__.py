"""Compose files to files of ours and back: ``importer`` and ``exporter``.

Neither guesses. What the other side cannot say is told, each with its place, instead of being left out quietly; what
comes from variables stays a variable, so that no secret is written down.
"""
