"""Compose files to the text of one of ours, with everything that changes meaning or is dropped."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from deploy_code.config.compose.defaults import tell_defaults
from deploy_code.config.compose.files import Files, env_values
from deploy_code.config.compose.findings import Finding, Findings
from deploy_code.config.compose.graph import Graph, is_active, names_of
from deploy_code.config.compose.names import tell_names
from deploy_code.config.compose.networks import Networks
from deploy_code.config.compose.ports import unique_host_ports
from deploy_code.config.compose.reader import Item, Reader
from deploy_code.config.compose.service import ORDER, service_of
from deploy_code.config.compose.unsaid import TOP
from deploy_code.config.compose.volumes import Volumes
from deploy_code.config.files import Inputs
from deploy_code.config.loader import load_inputs
from deploy_code.config.nodes import Entries, place_of
from deploy_code.config.write import Dumper
from deploy_code.errors import ConfigError

_SECTIONS = frozenset({"version", "name", "services", "networks", "volumes", "secrets", "configs"})
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HEAD = "# Every option, explained: deploy-code schema --reference\n\n"
_ENDLESS = 2**31  # columns: a folded line is only harder to read


@dataclass(frozen=True, slots=True)
class Imported:
    """``text``: a file of ours that loads; ``findings``: what there is to tell, in the order of the files."""

    text: str
    findings: tuple[Finding, ...]


def import_compose(
    files: Sequence[str],
    *,
    folder: str,
    environ: Mapping[str, str],
    profiles: Collection[str] = (),
    env_files: Sequence[str] = (),
) -> Imported:
    """``files`` merged, as a file of ours that will lie in ``folder``.

    ``profiles``: those that are active; services of others are disabled. ``env_files``: read instead of ``.env`` beside
    the first file. Raises ConfigError: E001 for a file that is missing, E002 with all problems of a broken one.
    """
    folder = os.path.realpath(folder)
    findings = Findings(tuple(files))
    beside = os.path.join(os.path.dirname(os.path.abspath(files[0])), ".env")
    values = env_values(env_files or [beside], environ, findings, needed=bool(env_files))
    ours = os.path.join(folder, ".env")
    known = env_values([ours], environ, Findings(()), needed=False)

    def lookup(name: str) -> str | None:
        return environ.get(name, values.get(name))

    sources = Files(findings, lookup)
    tree = sources.read(files)
    findings.raise_problems()
    assert tree is not None
    reader = Reader(
        findings=findings,
        lookup=lookup,
        is_known=lambda name: name in environ or name in known,
        folders={file: os.path.realpath(each) for file, each in sources.folders.items()},
        folder=folder,
    )
    active = {*profiles, *(lookup("COMPOSE_PROFILES") or "").split(",")} - {""}
    document = _document(reader, tree, active)
    findings.raise_problems()
    text = _text(document, files)
    _check(text, folder, {**values, **environ}, tree, findings)
    findings.raise_problems()
    return Imported(text, findings.ordered())


# --------------------------------------------------------------------------- the document


def _document(reader: Reader, tree: Entries, profiles: Collection[str]) -> dict[str, Any]:
    top = reader.entries(Item(tree, (), tree.place))
    for key, item in top.items():
        if key not in _SECTIONS:
            reader.dropped(TOP.get(key, "deploy-code knows no such section"), item)
    networks = Networks(reader, reader.entries(top.get("networks")))
    services = _services(reader, top, networks, profiles)
    section = networks.section()
    return {
        "version": "1.0.0",
        **_name(reader, top.get("name")),
        **({"infrastructure": {"network": section}} if section else {}),
        "deployment": {"strategy": "Parallel"},
        "services": services,
    }


def _name(reader: Reader, item: Item | None) -> dict[str, str]:
    text = reader.text(item)
    if text is None:
        return {}
    name = reader.fixed(text)
    if _PROJECT.fullmatch(name):
        return {"name": name}
    reader.problem(f"'{name}' is no name of a project", text, "use letters, digits, '_', '.' and '-'")
    return {}


def _services(
    reader: Reader, top: dict[str, Item], networks: Networks, profiles: Collection[str]
) -> dict[str, dict[str, Any]]:
    items = reader.entries(top.get("services"))
    if not items:
        reader.problem(
            "there are no services", top.get("services") or next(iter(top.values())), "write them below services:"
        )
    volumes = Volumes(
        reader,
        reader.entries(top.get("volumes")),
        reader.entries(top.get("secrets")),
        reader.entries(top.get("configs")),
    )
    names = names_of(reader, items)
    active = {name for name, item in items.items() if is_active(reader, item, profiles)}
    graph = Graph(reader, items, active)
    found: dict[str, dict[str, Any]] = {}
    for name, item in items.items():
        service = service_of(reader, item, volumes)
        networks.add(name, reader.entries(item), item, enabled=name in active)
        found[names[name]] = _in_order(_placed(reader, name, item, service, graph, names, name in active))
    unique_host_ports(reader, found, {names[name]: item for name, item in items.items()})
    if found:
        tell_defaults(reader, found, top["services"])
        tell_names(reader, items, names)
    return found


def _placed(
    reader: Reader,
    name: str,
    item: Item,
    service: dict[str, Any],
    graph: Graph,
    names: dict[str, str],
    enabled: bool,
) -> dict[str, Any]:
    """``service`` in the graph of all."""
    if not enabled:
        service["enabled"] = False
        reader.changed("of a profile that is not active, so enabled: false", reader.entries(item)["profiles"])
    dependencies = graph.dependencies(name, names)
    if dependencies:
        service["dependencies"] = dependencies
    if name in graph.one_shots:
        service["one_shot"] = True
        reader.changed("another service waits for its end: a one-shot, which runs again only when it changes", item)
        if service.pop("replicas", 1) != 1:
            reader.changed("a one-shot runs once", item)
    return service


def _in_order(service: dict[str, Any]) -> dict[str, Any]:
    known = {key: service[key] for key in ORDER if key in service}
    return known | service


# --------------------------------------------------------------------------- the text


def _text(document: dict[str, Any], files: Sequence[str]) -> str:
    sources = ", ".join(os.path.basename(file) for file in files)
    body: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=_ENDLESS)
    head = f"# Made from {sources} by 'deploy-code import compose'.\n{_HEAD}"
    return head + "".join(_spaced(body.splitlines(keepends=True)))


def _spaced(lines: Sequence[str]) -> list[str]:
    """An empty line before each section and each service."""
    found: list[str] = []
    inside = False
    for line in lines:
        is_section = line[:1] not in (" ", "-", "\n")
        is_service = inside and line.startswith("  ") and line[2:3] not in (" ", "-", "\n")
        after_head = found[-1:] == ["services:\n"]
        if (is_section and line.rstrip().endswith(":")) or (is_service and not after_head):
            found.append("\n")
        inside = line == "services:\n" if is_section else inside
        found.append(line)
    return found


def _check(text: str, folder: str, variables: Mapping[str, str], tree: Entries, findings: Findings) -> None:
    """What was made must load; what does not is a problem where it comes from."""
    name = "deploy-code.yaml"
    inputs = Inputs(folder=folder, texts=((name, text.encode()),), dotenv_path=".env", dotenv=None)
    try:
        load_inputs(inputs, variables, None)
    except ConfigError as exc:
        for problem in exc.problems:
            path = tuple(problem.path.split("."))
            findings.problem(problem.message, place_of(tree, path[:2], key=True), path, problem.remedy)
