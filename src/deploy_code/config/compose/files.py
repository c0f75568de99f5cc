"""Compose files to one tree: read, `include` and `extends` followed, several files merged as Compose merges them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy_code.config.compose.findings import Findings
from deploy_code.config.compose.merge import merged_files, merged_services
from deploy_code.config.compose.template import Lookup, TemplateError, parse_compose, value_of
from deploy_code.config.dotenv import parse_dotenv
from deploy_code.config.files import read_files
from deploy_code.config.nodes import Entries, Items, Node, Place, Scalar
from deploy_code.config.parse import parse
from deploy_code.errors import ConfigError

_VERSIONS = ("2", "3")
_NOT_EXTENDED = ("depends_on", "links", "volumes_from")  # as Compose 1.x has it: others would not be there


@dataclass(slots=True)
class Files:
    """``folders``: where relative paths of a file start: the first file's folder, and their own for files that are
    extended or included.
    """

    findings: Findings
    lookup: Lookup
    folders: dict[str, str] = field(default_factory=dict)
    _extended: dict[str, Entries | None] = field(default_factory=dict)

    def read(self, files: Sequence[str]) -> Entries | None:
        """All ``files`` as one; None where nothing sensible can be read. Raises ConfigError (E001)."""
        folder = os.path.dirname(os.path.abspath(files[0]))
        merged: Entries | None = None
        for file in files:
            tree = self._file(file, folder)
            if tree is not None:
                merged = tree if merged is None else merged_files(merged, tree)
        return merged

    def _file(self, file: str, folder: str, trail: tuple[str, ...] = ()) -> Entries | None:
        tree = self._parsed(file, folder)
        if tree is None:
            return None
        services = tree.nodes.get("services")
        if isinstance(services, Entries):
            for name in list(services.nodes):
                services.nodes[name] = self._whole(services, name, ())
        return self._with_included(tree, (*trail, os.path.realpath(file)))

    def _parsed(self, file: str, folder: str) -> Entries | None:
        data = read_files([file]).texts[0][1]
        self.folders[file] = folder
        tree, problems = parse(data, file)
        self.findings.problems += problems
        if tree is None:
            if not problems:
                self.findings.problem("the file is empty", Place(file, 1, 1), remedy="write at least 'services:'")
            return None
        self._version(tree)
        return tree

    def _version(self, tree: Entries) -> None:
        version = tree.nodes.get("version")
        if isinstance(version, Scalar) and not version.text.startswith(_VERSIONS):
            remedy = "versions 2 and 3 are read, and files without a version"
            self.findings.problem(f"version {version.text} of Compose files is not read", version.place, (), remedy)
        elif "services" not in tree.nodes and _looks_like_version_1(tree):
            remedy = "put the services below services:"
            self.findings.problem("version 1 of Compose files is not read", tree.place, (), remedy)

    # ----------------------------------------------------------------------- include

    def _with_included(self, tree: Entries, trail: tuple[str, ...]) -> Entries:
        include = tree.nodes.pop("include", None)
        for node in include.items if isinstance(include, Items) else ():
            for path in _paths(node):
                included = self._included(path, tree.place.file, trail)
                tree = tree if included is None else merged_files(included, tree)
            if isinstance(node, Entries):
                for key in node.nodes.keys() & {"env_file", "project_directory"}:
                    self.findings.dropped(
                        "an included file is read as it lies, with the variables of all",
                        node.keys[key],
                        ("include", key),
                    )
        return tree

    def _included(self, path: Scalar, file: str, trail: tuple[str, ...]) -> Entries | None:
        target = os.path.join(os.path.dirname(file), self._value(path))
        if os.path.realpath(target) in trail:
            self.findings.problem(f"{target} includes itself", path.place, ("include",))
            return None
        try:
            return self._file(target, os.path.dirname(os.path.abspath(target)), trail)
        except ConfigError as exc:
            self.findings.problem(exc.message, path.place, ("include",))
            return None

    # ----------------------------------------------------------------------- extends

    def _whole(self, services: Entries, name: str, trail: tuple[tuple[str, str], ...]) -> Node:
        """A service with what it extends below it."""
        service = services.nodes[name]
        extends = service.nodes.get("extends") if isinstance(service, Entries) else None
        if not isinstance(service, Entries) or extends is None:
            return service
        here = (service.place.file, name)
        if here in trail:
            self.findings.problem(f"'{name}' extends itself", extends.place, ("services", name, "extends"))
            return service
        base = self._base(services, extends, (*trail, here), ("services", name, "extends"))
        if base is None:
            return service
        whole = merged_services(base, service)
        whole.nodes.pop("extends", None)
        return whole

    def _base(
        self, services: Entries, extends: Node, trail: tuple[tuple[str, str], ...], path: tuple[str, ...]
    ) -> Entries | None:
        file, name = _extended(extends)
        if name is None:
            self.findings.problem("must name a service", extends.place, path, "write extends: {service: name}")
            return None
        elsewhere = services if file is None else self._services_of(file, extends.place.file, path)
        if elsewhere is None:
            return None
        if self._value(name) not in elsewhere.nodes:
            self.findings.problem(f"no service is called '{name.text}' there", name.place, path)
            return None
        base = self._whole(elsewhere, self._value(name), trail)
        if file is None or not isinstance(base, Entries):
            return base if isinstance(base, Entries) else None
        return self._without_neighbours(base, extends, path)

    def _without_neighbours(self, base: Entries, extends: Node, path: tuple[str, ...]) -> Entries:
        """What names other services of another file is left there."""
        kept = Entries(base.place)
        for key, node in base.nodes.items():
            if key in _NOT_EXTENDED:
                self.findings.dropped(f"{key} of the extended service names services of its file", extends.place, path)
            else:
                kept.put(key, node, base.keys[key])
        return kept

    def _services_of(self, file: Scalar, beside: str, path: tuple[str, ...]) -> Entries | None:
        target = os.path.join(os.path.dirname(beside), self._value(file))
        if target not in self._extended:
            try:
                tree = self._parsed(target, self.folders.get(target) or os.path.dirname(os.path.abspath(target)))
            except ConfigError as exc:
                self.findings.problem(exc.message, file.place, path)
                tree = None
            services = tree.nodes.get("services") if tree else None
            self._extended[target] = services if isinstance(services, Entries) else None
        return self._extended[target]

    def _value(self, node: Scalar) -> str:
        try:
            return value_of(parse_compose(node.text), self.lookup)
        except TemplateError as exc:
            self.findings.problem(str(exc), node.place)
            return node.text


def _extended(extends: Node) -> tuple[Scalar | None, Scalar | None]:
    if isinstance(extends, Scalar):
        return None, extends
    if not isinstance(extends, Entries):
        return None, None
    file, name = extends.nodes.get("file"), extends.nodes.get("service")
    return file if isinstance(file, Scalar) else None, name if isinstance(name, Scalar) else None


def _paths(node: Node) -> list[Scalar]:
    """One entry of ``include``: a path, or a mapping with one or several."""
    if isinstance(node, Scalar):
        return [node]
    if isinstance(node, Entries):
        return _paths(node.nodes["path"]) if "path" in node.nodes else []
    return [each for each in node.items if isinstance(each, Scalar)]


def _looks_like_version_1(tree: Entries) -> bool:
    return any(isinstance(node, Entries) and node.nodes.keys() & {"image", "build"} for node in tree.nodes.values())


def env_values(files: Sequence[str], environ: Mapping[str, str], findings: Findings, *, needed: bool) -> dict[str, str]:
    """The variables of ``.env`` files; of several the later one wins. ``needed``: one that is missing is E001."""
    values: dict[str, str] = {}
    for file in files:
        if not needed and not os.path.isfile(file):
            continue
        found, problems = parse_dotenv(read_files([file]).texts[0][1], file, environ)
        findings.problems += problems
        values |= found
    return values
