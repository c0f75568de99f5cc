"""Paths of this machine: relative ones start elsewhere in our file than in a Compose file."""

from __future__ import annotations

import os

from deploy_code.config.compose.reader import Reader, Text
from deploy_code.config.compose.template import joined, value_of
from deploy_code.config.write import AsWritten


def host_path(reader: Reader, text: Text) -> str | AsWritten:
    """A path of this machine as seen from our file's folder."""
    value = value_of(text.parts, reader.lookup)
    if value.startswith(("/", "~")):
        return reader.written(text)
    between = os.path.relpath(reader.folders[text.place.file], reader.folder)
    if not text.has_variables:
        return reader.written(text.of(joined(_relative(os.path.join(between, value)))))
    return reader.written(text if between == "." else text.of(joined(f"{between}/", text.parts)))


def absolute(reader: Reader, text: Text) -> str:
    """Where on this machine a path points to now."""
    path = os.path.expanduser(value_of(text.parts, reader.lookup))
    return os.path.normpath(os.path.join(reader.folders[text.place.file], path))


def _relative(path: str) -> str:
    path = os.path.normpath(path)
    return path if path == "." or path.startswith("..") else f"./{path}"
