"""What all parts of an export share: text in Compose's spelling, paths as seen from its folder, and what is told."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy_code.config.compose.findings import Findings
from deploy_code.config.compose.template import (
    Template,
    TemplateError,
    Variable,
    in_compose,
    joined,
    parse_ours,
    variables,
)
from deploy_code.config.nodes import Path, place_of
from deploy_code.config.source import Source

_AT_START = re.compile(r"PORT(?:_\d+)?|DEPLOY_CODE_[A-Z0-9_]+|services\..+\.(?:host|port)")


@dataclass(slots=True)
class Writer:
    """``folder``: where the Compose file will lie. ``resolve``: what ``${PORT}`` and its like are at a path."""

    findings: Findings
    source: Source
    folder: str
    resolve: Callable[[str, Path], Template | None]

    def changed(self, message: str, path: Path) -> None:
        self.findings.changed(message, place_of(self.source.tree, path, key=True), path)

    def dropped(self, message: str, path: Path) -> None:
        self.findings.dropped(message, place_of(self.source.tree, path, key=True), path)

    def text(self, value: Any, path: Path) -> str:
        """A value of our file, as text of a Compose file."""
        if isinstance(value, bool):
            return "true" if value else "false"
        return in_compose(self._without_placeholders(self.parts(value), path))

    def parts(self, value: Any) -> Template:
        """``value``, which our loader accepted, as text with variables."""
        try:
            return parse_ours(str(value))
        except TemplateError:  # what deploy-code fills in at start may look like nothing that Compose knows
            return (str(value),)

    def number(self, value: Any, path: Path) -> Any:
        """A number, or the variable that it comes from."""
        return value if isinstance(value, int | float) else self.text(value, path)

    def path(self, value: Any, path: Path) -> str:
        """A path of this machine, as seen from the Compose file."""
        parts = self.parts(value)
        text = self.text(value, path)
        first = parts[0] if parts else ""
        between = os.path.relpath(self.source.folder, self.folder)
        if isinstance(first, Variable):
            return text if between == "." else f"{between}/{text}"
        if first.startswith(("/", "~")):
            return text
        if len(parts) > 1:
            return text if between == "." and text.startswith(".") else f"{between}/{text}"
        shown = os.path.normpath(os.path.join(between, text))
        return shown if shown == "." or shown.startswith("..") else f"./{shown}"

    def _without_placeholders(self, parts: Template, path: Path) -> Template:
        return joined(*(self._resolved(part, path) for part in parts))

    def _resolved(self, part: str | Variable, path: Path) -> str | Variable | Template:
        if isinstance(part, str):
            return part
        if _AT_START.fullmatch(part.name):
            return self._at_start(part.name, path)
        if part.operator.endswith("+") or any(variables(part.word)):
            self.changed(f"the form of ${{{part.name}...}} is not known to docker-compose 1", path)
        return part

    def _at_start(self, name: str, path: Path) -> Template:
        known = self.resolve(name, path)
        if known is None:
            self.changed(f"${{{name}}} is known to deploy-code alone, and left as it is", path)
            return (f"${{{name}}}",)
        return known
