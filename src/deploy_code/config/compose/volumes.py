"""``volumes``, ``tmpfs``, ``secrets`` and ``configs`` of a service to volumes of ours."""

from __future__ import annotations

import os
import re
from typing import Any

from deploy_code.config.compose import amounts
from deploy_code.config.compose.paths import absolute, host_path
from deploy_code.config.compose.reader import Item, Reader, Text
from deploy_code.config.compose.template import joined

_SLUG = re.compile(r"[^A-Za-z0-9_.-]+")
_MODES = {
    "z": "no label of SELinux is set",
    "Z": "no label of SELinux is set",
    "nocopy": "what the image has there is copied into a new volume",
    "copy": "",
    "rw": "",
    "cached": "",
    "delegated": "",
    "consistent": "",
}
"""Modes of a mount, and what is lost with each; empty: nothing."""

Volume = dict[str, Any]


class Volumes:
    """The volumes of all services. ``declared``: the file's own ``volumes:`` section, ``secrets:`` and ``configs:``."""

    def __init__(
        self, reader: Reader, declared: dict[str, Item], secrets: dict[str, Item], configs: dict[str, Item]
    ) -> None:
        self._reader = reader
        self._secrets, self._configs = secrets, configs
        self._declared = {name: reader.entries(item) for name, item in declared.items()}
        self._items = declared
        self._binds: dict[str, Text] = {}  # volumes of the local driver that are a folder of this machine
        for name in declared:
            self._declaration(name)

    def of(self, name: str, service: dict[str, Item]) -> list[Volume]:
        """All volumes of the service ``name``."""
        reader = self._reader
        found: list[Volume] = []
        for item in reader.items(service.get("volumes")):
            volume = self._short(name, item) if item.is_scalar else self._long(name, item)
            found += [volume] if volume else []
        found += [self._tmpfs(text) for text in reader.texts(service.get("tmpfs"), single=True)]
        found += self._files(service.get("secrets"), self._secrets, "secret", "/run/secrets/")
        found += self._files(service.get("configs"), self._configs, "config", "/")
        return _distinct(found)

    # ----------------------------------------------------------------------- the section

    def _declaration(self, name: str) -> None:
        reader, keys = self._reader, self._declared[name]
        external = keys.get("external")
        if external is not None and (not external.is_scalar or reader.flag(external)):
            reader.changed("not taken over: a new, empty volume of the project; copy what is in the old one", external)
        elif "name" in keys:
            reader.changed(f"called {name} in this project here: a new, empty volume", keys["name"])
        options = {key: reader.text(item) for key, item in reader.entries(keys.get("driver_opts")).items()}
        device, kind = options.get("device"), options.get("o")
        if device is not None and kind is not None and "bind" in reader.value(kind).split(","):
            self._binds[name] = device
        elif options:
            reader.dropped("options of a volume's driver: a volume lies on this machine", keys["driver_opts"])
        driver = reader.text(keys.get("driver"))
        if driver is not None and reader.value(driver) not in ("local", "default"):
            reader.dropped(f"driver {reader.value(driver)}: a volume lies on this machine", keys["driver"])
        if "labels" in keys:
            reader.dropped("volumes have deploy-code's own labels", keys["labels"])

    # ----------------------------------------------------------------------- forms

    def _short(self, service: str, item: Item) -> Volume | None:
        """``[source:]target[:mode]``."""
        reader = self._reader
        text = reader.text(item)
        if text is None:
            return None
        pieces = reader.split(text, ":")
        if len(pieces) > 3 or not reader.value(pieces[-1]):
            reader.problem(f"'{reader.value(text)}' is no volume", text, "write source:/path or source:/path:ro")
            return None
        if len(pieces) == 1:
            return self._anonymous(service, pieces[0])
        source, target = pieces[:2]
        volume = self._mount(service, source, target, text)
        if volume and len(pieces) == 3:
            self._modes(volume, pieces[2])
        return volume

    def _modes(self, volume: Volume, modes: Text) -> None:
        for mode in self._reader.fixed(modes).split(","):
            if mode == "ro":
                volume["read_only"] = True
            elif _MODES.get(mode, f"'{mode}' is not known here"):
                self._reader.dropped(f"{mode}: {_MODES.get(mode, 'not known here')}", modes)

    def _mount(self, service: str, source: Text, target: Text, text: Text) -> Volume | None:
        reader = self._reader
        value = reader.value(source)
        if not value:
            return self._anonymous(service, target)
        if value.startswith((".", "/", "~")):
            return self._bind(source, target)
        return self._named(value, source, target, text)

    def _named(self, value: str, source: Text, target: Text, text: Text) -> Volume | None:
        reader = self._reader
        if value not in self._declared:
            reader.problem(f"no volume is called '{value}'", text, f"add {value}: below volumes:, or write ./{value}")
            return None
        if value in self._binds:
            return self._bind(self._binds[value], target, name=value)
        reader.fixed(source)
        return {"name": value, "mount_path": self._target(target)}

    def _bind(self, source: Text, target: Text, name: str = "") -> Volume:
        reader = self._reader
        if not os.path.exists(absolute(reader, source)):
            reader.changed(
                f"{reader.value(source)} is not there: Compose makes a folder, here it must be made before (S005)",
                source,
            )
        return {
            "name": name or _slug(reader.value(target)),
            "mount_path": self._target(target),
            "source": host_path(reader, source),
        }

    def _anonymous(self, service: str, target: Text) -> Volume:
        name = f"{_slug(service)}-{_slug(self._reader.value(target))}"
        self._reader.changed(f"a volume without a name is called {name} here, and stays", target)
        return {"name": name, "mount_path": self._target(target)}

    def _target(self, target: Text) -> Any:
        if not self._reader.value(target).startswith("/"):
            self._reader.problem(f"'{self._reader.value(target)}' is no absolute path", target)
        return self._reader.written(target)

    def _long(self, service: str, item: Item) -> Volume | None:
        reader, keys = self._reader, self._reader.entries(item)
        target, source = reader.text(keys.get("target")), reader.text(keys.get("source"))
        kind = reader.one_of(keys.get("type"), ("volume", "bind", "tmpfs", "npipe", "cluster", "image"), "")
        if target is None or not kind:
            reader.problem("a volume needs its type and its target", item, "write type: bind, source: and target:")
            return None
        volume = self._of_kind(kind, service, source, target, item)
        if volume is None:
            return None
        if reader.flag(keys.get("read_only")):
            volume["read_only"] = True
        self._details(volume, keys)
        return volume

    def _of_kind(self, kind: str, service: str, source: Text | None, target: Text, item: Item) -> Volume | None:
        reader = self._reader
        if kind == "tmpfs":
            return {"name": f"tmpfs-{_slug(reader.value(target))}", "mount_path": self._target(target), "tmpfs": True}
        if kind == "bind" and source is not None:
            return self._bind(source, target)
        if kind == "volume":
            return (
                self._anonymous(service, target)
                if source is None
                else self._named(reader.value(source), source, target, source)
            )
        if kind == "bind":
            reader.problem("a bind mount needs its source", item)
        else:
            reader.dropped(f"a volume of type {kind} cannot be had here", item)
        return None

    def _details(self, volume: Volume, keys: dict[str, Item]) -> None:
        reader = self._reader
        for section in ("bind", "volume"):
            for key, item in reader.entries(keys.get(section)).items():
                if key != "create_host_path":
                    reader.dropped(f"{key} cannot be said here", item)
        for key, item in reader.entries(keys.get("tmpfs")).items():
            size = reader.megabytes(item) if key == "size" else None
            if size:
                volume["size_mb"] = size
            elif key != "size":
                reader.dropped(f"{key} cannot be said here", item)

    def _tmpfs(self, text: Text) -> Volume:
        """``/run`` or ``/run:size=64m,mode=1777``."""
        reader = self._reader
        target, *options = reader.split(text, ":")
        volume: Volume = {
            "name": f"tmpfs-{_slug(reader.value(target))}",
            "mount_path": self._target(target),
            "tmpfs": True,
        }
        for option in reader.fixed(options[0]).split(",") if options else ():
            key, _, value = option.partition("=")
            size = _size(value) if key == "size" else 0
            if size:
                volume["size_mb"] = size
            else:
                reader.dropped(f"{option} cannot be said here", text)
        return volume

    # ----------------------------------------------------------------------- secrets and configs

    def _files(self, item: Item | None, declared: dict[str, Item], kind: str, folder: str) -> list[Volume]:
        found: list[Volume] = []
        for each in self._reader.items(item):
            volume = self._file(each, declared, kind, folder)
            found += [volume] if volume else []
        return found

    def _file(self, item: Item, declared: dict[str, Item], kind: str, folder: str) -> Volume | None:
        reader = self._reader
        keys = {} if item.is_scalar else reader.entries(item)
        source = reader.text(item if item.is_scalar else keys.get("source"))
        if source is None:
            reader.problem(f"a {kind} needs its source", item)
            return None
        name = reader.fixed(source)
        if name not in declared:
            reader.problem(f"no {kind} is called '{name}'", source, f"add it below {kind}s:")
            return None
        for key in keys.keys() & {"uid", "gid", "mode"}:
            reader.dropped("the file has the owner and mode that it has on this machine", keys[key])
        file = self._on_disk(name, declared[name], kind, source)
        return None if file is None else self._at(name, file, reader.text(keys.get("target")), kind, folder)

    def _on_disk(self, name: str, declaration: Item, kind: str, source: Text) -> Text | None:
        reader = self._reader
        keys = reader.entries(declaration)
        file = reader.text(keys.get("file"))
        if file is not None:
            if not os.path.exists(absolute(reader, file)):
                reader.changed(f"{reader.value(file)} is not there: it must be before a deployment (S005)", file)
            return file
        for key, why in (
            ("external", "kept by Swarm"),
            ("environment", "taken from a variable"),
            ("content", "written in the Compose file"),
        ):
            if key in keys:
                reader.dropped(f"a {kind} {why}: only files can be handed in; write file: in {kind}s.{name}", source)
                return None
        reader.problem(f"a {kind} needs its file", declaration, "write file: ./name")
        return None

    def _at(self, name: str, file: Text, target: Text | None, kind: str, folder: str) -> Volume:
        path = Text(joined(name), file.place, file.path) if target is None else target
        if not self._reader.value(path).startswith("/"):
            path = path.of(joined(folder, path.parts))
        return {
            "name": f"{kind}-{_slug(name)}",
            "mount_path": self._target(path),
            "source": host_path(self._reader, file),
            "read_only": True,
        }


def _slug(text: str) -> str:
    return _SLUG.sub("-", text.strip("/")).strip("-.") or "root"


def _size(text: str) -> int:
    try:
        return amounts.megabytes(amounts.size(text))
    except ValueError:
        return 0


def _distinct(volumes: list[Volume]) -> list[Volume]:
    """Names of mounts that nobody chose are told apart by a number."""
    taken: set[str] = set()
    for volume in volumes:
        name, number = volume["name"], 2
        while ("source" in volume or "tmpfs" in volume) and volume["name"] in taken:
            volume["name"], number = f"{name}-{number}", number + 1
        taken.add(volume["name"])
    return volumes
