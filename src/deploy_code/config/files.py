"""The bytes that a load begins with: config files and ``.env``.

Needs neither YAML nor models, so every command can afford it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy_code.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Raw inputs. ``folder`` is absolute (links resolved); file names are as the caller gave them."""

    folder: str
    texts: tuple[tuple[str, bytes], ...]
    dotenv_path: str
    dotenv: bytes | None


def read_files(files: Sequence[str | Path]) -> Inputs:
    """Read ``files`` and the ``.env`` beside the first. Raises ConfigError (E001) for a file that is not there."""
    if not files:
        raise ConfigError("no configuration file was named", code="E001", remedy="Name one with -c")
    texts = tuple((str(file), _bytes(str(file))) for file in files)
    folder = folder_of(files[0])
    path = os.path.join(os.path.dirname(str(files[0])), ".env")
    return Inputs(folder=folder, texts=texts, dotenv_path=path, dotenv=_optional(os.path.join(folder, ".env")))


def folder_of(file: str | Path) -> str:
    """The folder of a config file: the start of all relative paths."""
    return os.path.dirname(os.path.realpath(file))


def without_mark(data: bytes) -> bytes:
    """``data`` without a byte order mark. (The codec that skips it is a module more at every start.)"""
    return data.removeprefix(b"\xef\xbb\xbf")


def _bytes(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
        what = "is a folder" if isinstance(exc, IsADirectoryError) else "does not exist"
        raise ConfigError(
            f"{file or 'the configuration file'} {what}",
            code="E001",
            remedy="Name the file with -c, or write one with 'deploy-code init'",
        ) from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigError("1 problem:", [Problem(f"cannot be read: {reason}", file=file)]) from exc


def _optional(path: str) -> bytes | None:
    try:
        with open(path, "rb") as opened:
            return opened.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as exc:
        problem = Problem(f"cannot be read: {exc.strerror}", file=path, remedy="make it readable for this user")
        raise ConfigError("1 problem:", [problem]) from exc
