"""What a command must know before it can open a project's state: its name and its folders.

On the path of ``status`` and ``logs``, which must work at once and with a broken file too. So the text is only
scanned: the few keys that matter stand at the left margin and just below it; nothing else is read. What the scan cannot
be sure of (flow style, anchors, tags, escapes) goes to the YAML parser; what that cannot read either falls back to the
folder's name and the default folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy_code.config.files import folder_of, read_files, without_mark
from deploy_code.config.interpolate import InterpolationError, Scope, interpolate
from deploy_code.errors import ConfigError, StateError
from deploy_code.model import Directories, Identity
from deploy_code.state.places import DATA_DIR, is_usable, state_home

DEFAULTS: Mapping[str, str] = {
    "data_dir": DATA_DIR,
    "log_dir": "/var/log/deploy-code",
    "temp_dir": "/tmp/deploy-code",
    "backup_dir": "/var/backups/deploy-code",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_ROOT = re.compile(r"^(name|environment|infrastructure)[ ]*:(?=[ \n]|\Z)", re.MULTILINE)
_UNSURE = re.compile(r"""^["'?&!*<{%\[]""", re.MULTILINE)
_NEXT_ROOT = re.compile(r"^[^\s#]", re.MULTILINE)
_LINE = re.compile(r"( *)([A-Za-z_][\w-]*) *:(?: +(.*))?")
_PLAIN = re.compile(r"""(?:"([^"\\]*)"|'([^']*)'|([A-Za-z0-9./$~_][^#'"]*?))(?:\s+#.*)?""")
_RISKY = re.compile(r"[&*!|>{}\[\]]|<<")


def find_identity(
    files: Sequence[str | Path], *, project: str | None = None, environ: Mapping[str, str] | None = None
) -> Identity:
    """Name and folders of the project in ``files``, or of the one called ``project``, for which no file is needed.

    Creates nothing. Raises ConfigError (E001) when there is no file and no ``project``, StateError (S005) when the
    project's state is there but may not be opened.
    """
    environ = os.environ if environ is None else environ
    facts = _facts(files, environ, optional=project is not None)
    name = project_name(facts.name, facts.folder) if facts.folder else ""
    if project is not None and project != name:
        facts = _Facts("", {})
        name = _checked(project)
    directories, warnings = _directories(name, facts, environ)
    real = tuple(os.path.realpath(file) for file in files) if facts.folder else ()
    return Identity(
        name=name, directories=directories, files=real, environment=facts.environment, warnings=tuple(warnings)
    )


def identity_of(
    folder: str, written: Mapping[str, str], *, files: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Identity:
    """The same for what was read already: ``written`` has ``name``, ``environment`` and the given storage keys.

    Raises StateError (S005) when the project's state is there but may not be opened.
    """
    facts = _Facts(folder, written)
    name = project_name(facts.name, folder)
    directories, warnings = _directories(name, facts, os.environ if environ is None else environ)
    return Identity(
        name=name, directories=directories, files=tuple(files), environment=facts.environment, warnings=tuple(warnings)
    )


def project_name(written: str | None, folder: str) -> str:
    """The project's name: as written, else the folder's, made safe as the name of a folder."""
    if written and _NAME.fullmatch(written):
        return written
    name = _UNSAFE.sub("-", written or os.path.basename(folder)).strip("-._")[:63]
    return name or "project"


def _checked(project: str) -> str:
    if _NAME.fullmatch(project):
        return project
    raise ConfigError(f"'{project}' is no name of a project", remedy="Use letters, digits, '.', '_' and '-'")


# --------------------------------------------------------------------------- what the files say


class _Facts:
    """``storage`` holds only what is written; ``folder`` is empty when no file was read."""

    def __init__(self, folder: str, written: Mapping[str, str]) -> None:
        self.folder = folder
        self.name = written.get("name")
        self.environment = (written.get("environment") or "production").lower() if folder else ""
        self.storage = {key: written[key] for key in DEFAULTS if written.get(key)}


def _facts(files: Sequence[str | Path], environ: Mapping[str, str], *, optional: bool) -> _Facts:
    try:
        inputs = read_files(files)
    except ConfigError:
        if optional:
            return _Facts("", {})
        raise
    written: dict[str, str] = {}
    for _, data in inputs.texts:
        written |= _scan(without_mark(data).decode("utf-8", "replace").replace("\r\n", "\n"))
    if any("$" in value for value in written.values()):
        written = _filled(written, inputs.dotenv, inputs.dotenv_path, environ)
    return _Facts(inputs.folder, written)


def _filled(written: Mapping[str, str], dotenv: bytes | None, path: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables filled in; what cannot be is left out, as if it were not written."""
    from deploy_code.config.dotenv import parse_dotenv

    known = parse_dotenv(dotenv, path, environ)[0] if dotenv else {}
    filled = {}
    for key, text in written.items():
        scope = Scope(lookup=lambda name: environ.get(name, known.get(name)))
        try:
            value = interpolate(text, scope)
        except InterpolationError:
            continue
        if not scope.missing:
            filled[key] = value
    return filled


def _scan(text: str) -> dict[str, str]:
    """``name``, ``environment`` and the storage keys as the text has them, variables not filled in."""
    if _UNSURE.search(text):
        return _parsed(text)
    found: dict[str, str] = {}
    for key, section in _sections(text):
        values = _values(key, section)
        if values is None or key in found:
            return _parsed(text)
        found |= values
    return {key: value for key, value in found.items() if key != "infrastructure"}


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """The keys at the margin that matter, each with its text down to the next key at the margin."""
    for match in _ROOT.finditer(text):
        following = _NEXT_ROOT.search(text, match.end())
        yield match[1], text[match.end() : following.start() if following else len(text)]


def _values(key: str, section: str) -> dict[str, str] | None:
    """What one section says, None when the scan cannot be sure."""
    if key != "infrastructure":
        value = _scalar(section.strip())
        return None if value is None else {key: value}
    if "storage" not in section and not _RISKY.search(section):
        return {key: ""}
    return _storage(section)


def _storage(section: str) -> dict[str, str] | None:
    """The keys under ``storage:`` in block style."""
    found = {"infrastructure": ""}
    margins: list[tuple[int, str]] = []  # the keys around the current line, with their indentation
    for line in section.split("\n"):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if not match:
            if text.startswith("- ") and len(margins) > 1 and margins[0][1] != "storage":
                continue
            return None
        indent, key = len(match[1]), match[2]
        margins = [(deep, outer) for deep, outer in margins if deep < indent] + [(indent, key)]
        path = [outer for _, outer in margins]
        if path[:1] == ["storage"] and not _take(path, match[3] or "", found):
            return None
    return found


def _take(path: list[str], text: str, found: dict[str, str]) -> bool:
    """Keep one line below ``storage``; False when it is not plain."""
    value = _scalar(text)
    if value is None or (len(path) == 1 and value):
        return False
    if len(path) == 2 and path[1] in DEFAULTS:
        found[path[1]] = value
    return True


def _scalar(text: str) -> str | None:
    if not text or text.startswith("#"):
        return ""
    match = _PLAIN.fullmatch(text)
    if not match or "\n" in text or (match[3] and ": " in match[3]):
        return None
    value = next(group for group in match.groups() if group is not None)
    return "" if match[3] in ("null", "Null", "NULL", "~") else value


def _parsed(text: str) -> dict[str, str]:
    """The same by the real parser, for files that the scan is not sure about; empty for broken ones."""
    from deploy_code.config.nodes import Node, Scalar, node_at
    from deploy_code.config.parse import parse

    tree, _ = parse(text.encode(), "")
    if tree is None:
        return {}
    paths: dict[str, Any] = {"name": ("name",), "environment": ("environment",)}
    paths |= {key: ("infrastructure", "storage", key) for key in DEFAULTS}
    nodes: dict[str, Node | None] = {key: node_at(tree, path) for key, path in paths.items()}
    return {key: node.text for key, node in nodes.items() if isinstance(node, Scalar) and not node.is_null}


# --------------------------------------------------------------------------- where things lie


def _directories(name: str, facts: _Facts, environ: Mapping[str, str]) -> tuple[Directories, list[str]]:
    """The folders of CONTRACTS §1: as configured, or the user's own where those are not writable."""
    own = os.path.join(state_home(environ), "deploy-code", name)
    wanted = {key: _absolute(facts, key, environ) for key in DEFAULTS}
    warnings: list[str] = []

    def choose(key: str, fallback: str) -> str:
        path = os.path.join(wanted[key], name)
        if is_usable(path):
            return path
        if key in facts.storage:
            warnings.append(f"warning: {key} {wanted[key]} is not writable for this user, using {fallback}")
        return fallback

    state = os.path.join(wanted["data_dir"], name)
    if not os.path.lexists(state):
        state = choose("data_dir", own)
    elif not is_usable(state):
        raise _not_ours(state, name)
    directories = Directories(
        state=state,
        logs=choose("log_dir", os.path.join(own, "logs")),
        temp=choose("temp_dir", os.path.join(own, "tmp")),
        backup=choose("backup_dir", os.path.join(own, "backups")),
    )
    return directories, warnings


def _not_ours(state: str, name: str) -> StateError:
    try:
        import pwd

        owner = pwd.getpwuid(os.stat(state).st_uid).pw_name
    except (OSError, KeyError):
        owner = "another user"
    return StateError(
        f"the state of project '{name}' in {state} cannot be opened: it belongs to {owner}",
        meaning="A second state beside it would hide what runs already",
        remedy=f"Run deploy-code as {owner}, or set infrastructure.storage.data_dir to a folder of your own",
    )


def _absolute(facts: _Facts, key: str, environ: Mapping[str, str]) -> str:
    path = facts.storage.get(key, DEFAULTS[key])
    home = environ.get("HOME", "")
    if home and (path == "~" or path.startswith("~/")):
        path = home + path[1:]
    return os.path.normpath(os.path.join(facts.folder or "/", path))


__all__ = ["DEFAULTS", "find_identity", "folder_of", "identity_of", "project_name"]
