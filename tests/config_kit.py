"""What the tests of the config part share: write a file, load it, list what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from deploy_code.config import check_files, load_config
from deploy_code.config.resolve import resolve
from deploy_code.config.schema import DeploymentConfig
from deploy_code.errors import Problem
from deploy_code.model import Project


def write(folder: Path, text: str, name: str = "deploy-code.yaml") -> Path:
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path


def load(folder: Path, text: str, **environ: str) -> DeploymentConfig:
    return load_config([write(folder, text)], environ=environ)


def project(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Project:
    return resolve(load(folder, text, **(environ or {})))


def problems(folder: Path, text: str, **environ: str) -> list[Problem]:
    return check_files([write(folder, text)], environ=environ)[0]


def complaints(folder: Path, text: str, **environ: str) -> list[str]:
    """Problems as ``line:column path code message (remedy)``, without the file's name."""
    return [
        f"{found.line}:{found.column} {found.path} {found.code} {found.message}"
        + (f" ({found.remedy})" if found.remedy else "")
        for found in problems(folder, text, **environ)
    ]


def warnings(folder: Path, text: str, **environ: str) -> list[str]:
    found, warned = check_files([write(folder, text)], environ=environ)
    assert found == []
    return warned


class MemoryCache:
    """A cache of resolved projects that counts what it was asked."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.hits = 0

    def get(self, digest: str) -> str | None:
        self.hits += digest in self.entries
        return self.entries.get(digest)

    def put(self, digest: str, text: str) -> None:
        self.entries[digest] = text
