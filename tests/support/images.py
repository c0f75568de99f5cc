"""Container images made of files of this machine: no registry, no base image and no build are needed.

An image is written in the format of ``docker save``, which Docker and Podman both load. Equal files give an equal
image ID, so an engine that has an image already is told by its ID and loads nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

#: The Engine API's word for this machine's processor.
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

CREATED = "2024-01-01T00:00:00Z"  # always the same, or equal images would not have equal IDs


@dataclass(frozen=True)
class Entry:
    """One path of a layer: a file (``text`` or the machine's ``source``), a ``link``, or a folder."""

    text: str | bytes = ""
    source: Path | None = None
    link: str = ""
    folder: bool = False
    mode: int = 0o644
    uid: int = 0

    def add_to(self, archive: tarfile.TarFile, path: str) -> None:
        info = tarfile.TarInfo(path.lstrip("/"))
        info.mode, info.uid, info.gid = self.mode, self.uid, self.uid
        info.mtime = int(self.source.stat().st_mtime) if self.source else 0  # Python compares it with its caches'
        if self.link:
            info.type, info.linkname = tarfile.SYMTYPE, self.link
            archive.addfile(info)
        elif self.folder:
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        else:
            data = self.source.read_bytes() if self.source else self._bytes()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    def _bytes(self) -> bytes:
        return self.text.encode() if isinstance(self.text, str) else self.text


def program(text: str) -> Entry:
    return Entry(text, mode=0o755)


def folder(mode: int = 0o755, uid: int = 0) -> Entry:
    return Entry(folder=True, mode=mode, uid=uid)


def link(to: str) -> Entry:
    return Entry(link=to, mode=0o777)


def copy(source: Path) -> Entry:
    """The machine's own file, followed if it is a link."""
    return Entry(source=source.resolve(), mode=source.stat().st_mode & 0o7777)


@dataclass(frozen=True, eq=False)
class Layer:
    """Files of an image, as a tar. Shared by all images that start from it."""

    entries: Mapping[str, Entry]

    @cached_property
    def data(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(self.entries):
                self.entries[path].add_to(archive, path)
        return buffer.getvalue()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, eq=False)
class Image:
    """``config`` has the Engine API's words: Cmd, Env, ExposedPorts, Healthcheck, StopSignal, ..."""

    name: str
    layers: tuple[Layer, ...]
    config: Mapping[str, object] = field(default_factory=dict)
    architecture: str = ARCHITECTURE

    @cached_property
    def config_file(self) -> bytes:
        document = {
            "architecture": self.architecture,
            "os": "linux",
            "created": CREATED,
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **self.config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in self.layers]},
            "history": [{"created": CREATED, "created_by": "deploy-code tests"} for _ in self.layers],
        }
        return json.dumps(document, sort_keys=True).encode()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.config_file).hexdigest()

    @property
    def id(self) -> str:
        """As the engines say it."""
        return f"sha256:{self.digest}"

    def _manifest(self) -> dict[str, object]:
        layers = [f"{layer.digest}/layer.tar" for layer in self.layers]
        return {"Config": f"{self.digest}.json", "RepoTags": [self.name], "Layers": layers}

    @staticmethod
    def save(images: Iterable[Image], into: BinaryIO) -> None:
        """Write ``images`` as one archive for ``POST /images/load``; layers they share are in it once."""
        images = list(images)
        files = {f"{image.digest}.json": image.config_file for image in images}
        files |= {f"{layer.digest}/layer.tar": layer.data for image in images for layer in image.layers}
        files["manifest.json"] = json.dumps([image._manifest() for image in images]).encode()
        with tarfile.open(fileobj=into, mode="w") as archive:
            for path, data in files.items():
                Entry(data).add_to(archive, path)
