"""What is told about a translation: what changes its meaning, what is dropped, and what is plainly wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy_code.config.loader import invalid
from deploy_code.config.nodes import Path, Place, dotted
from deploy_code.errors import Problem

CHANGED = "changed"
DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``kind`` is ``changed`` or ``dropped``. ``place`` is where it is written, ``path`` what it is."""

    kind: str
    message: str
    place: Place
    path: Path = ()

    def __str__(self) -> str:
        where = ":".join(map(str, self.place)) if self.place.line else self.place.file
        parts = [self.kind, where, dotted(self.path), self.message]
        return ": ".join(part for part in parts if part)


@dataclass(slots=True)
class Findings:
    """Collects them; the same is said once for each place."""

    files: tuple[str, ...]
    lines: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def changed(self, message: str, place: Place, path: Path = ()) -> None:
        self._add(Finding(CHANGED, message, place, path))

    def dropped(self, message: str, place: Place, path: Path = ()) -> None:
        self._add(Finding(DROPPED, message, place, path))

    def problem(self, message: str, place: Place, path: Path = (), remedy: str = "") -> None:
        file, line, column = place
        self.problems.append(Problem(message, path=dotted(path), remedy=remedy, file=file, line=line, column=column))

    def raise_problems(self) -> None:
        """Raise ConfigError (E002) with all problems, if there are any."""
        if self.problems:
            raise invalid(sorted(self.problems, key=lambda found: self._order(found.file, found.line)), self.files)

    def ordered(self) -> tuple[Finding, ...]:
        """All lines in the order of the files."""
        return tuple(sorted(self.lines, key=lambda line: self._order(line.place.file, line.place.line)))

    def _order(self, file: str, line: int) -> tuple[int, int]:
        return (self.files.index(file) if file in self.files else len(self.files), line)

    def _add(self, finding: Finding) -> None:
        if finding not in self.lines:
            self.lines.append(finding)
