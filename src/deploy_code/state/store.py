"""The record of one project, as the engine and the read-only commands use it (DESIGN §8).

What is wanted is written here before anything is done. The engine alone writes the tables it owns, under
the deploy lock; the agent writes its own through its own connection; everybody may read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploy_code.errors import StateError
from deploy_code.state.connection import Connection
from deploy_code.state.encode import dump, dump_map, policy_digest, policy_row, revision_row
from deploy_code.state.migrate import VERSION, bring_up_to_date, refuse_newer
from deploy_code.state.questions import Questions
from deploy_code.state.rows import NewDeployment, ProjectRow, ServiceMap
from deploy_code.state.sql import statements

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from deploy_code.model import Policy, ServiceSpec

__all__ = ["FILE", "Store", "policy_digest"]

FILE = "state.db"
RESOLVED_KEPT = 5  # entries in the cache of resolved configs


class Store(Questions):
    """All that is recorded of one project. Synchronous; use one object from one thread at a time.

    Raises ``StateError``: E004 disk full, S005 cannot be opened or is damaged, E008 busy for too long.
    """

    # ------------------------------------------------------------------ open and close

    @classmethod
    def create(cls, directory: Path | str, *, name: str, file: str, environment: str, log_dir: str) -> Store:
        """The state in ``directory`` (made 0700), for writing; what exists already is opened as it is."""
        from deploy_code.state.create import create

        create(_path(directory), ProjectRow(name, file, environment, log_dir, 0.0))
        return cls.open(directory)

    @classmethod
    def open(cls, directory: Path | str, *, read_only: bool = False) -> Store:
        """The state that exists in ``directory``; one of an older version is brought up to date first."""
        path = _path(directory)
        if not cls.exists(directory):
            raise _missing(path)
        store = cls(Connection(path, statements(), read_only=read_only))
        try:
            store._check_version()
        except BaseException:
            store.close()
            raise
        return store

    @staticmethod
    def exists(directory: Path | str) -> bool:
        """Whether there is a state. Raises ``StateError`` S005 when the folder cannot be looked into."""
        try:
            os.stat(_path(directory))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            from deploy_code.state.files import state_error

            raise state_error(_path(directory), exc) from exc
        return True

    def _check_version(self) -> None:
        found = self._sql.version()
        refuse_newer(self._sql.path, found)
        if found < VERSION:
            bring_up_to_date(self._sql.path)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._sql.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------------ the project and what it is made of

    def adopt(self, file: str, environment: str, log_dir: str) -> None:
        """From now on this state belongs to that file."""
        self._sql.run("adopt", {"file": file, "environment": environment, "log_dir": log_dir})

    def put_revisions(self, revisions: Iterable[tuple[int, ServiceSpec]]) -> None:
        """Record contents under their numbers. One that is known keeps its number.

        Its content is replaced: under one hash contents differ only in what the hash leaves out (where an image is
        pulled from, which ID a build got).
        """
        with self._sql.transaction():
            self._put_revisions(revisions)

    def put_policies(self, policies: Iterable[Policy]) -> None:
        """Record policies under their digests."""
        with self._sql.transaction():
            self._put_policies(policies)

    def _put_revisions(self, revisions: Iterable[tuple[int, ServiceSpec]]) -> None:
        now = time.time()
        self._sql.run_many("put_revision", [revision_row(number, spec, now) for number, spec in revisions])

    def _put_policies(self, policies: Iterable[Policy]) -> None:
        self._sql.run_many("put_policy", dict(policy_row(policy) for policy in policies).items())

    def forget_revisions(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Drop contents that nobody returns to any more."""
        with self._sql.transaction():
            self._sql.run_many("forget_revision", list(pairs))

    def put_images(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember what images say of themselves, by ID."""
        with self._sql.transaction():
            self._sql.run_many("put_image", [(key, dump(dict(data))) for key, data in facts.items()])

    def forget_images(self, ids: Iterable[str]) -> None:
        """These are gone from the engine."""
        with self._sql.transaction():
            self._sql.run_many("forget_image", [(each,) for each in ids])

    # ------------------------------------------------------------------ deployments

    def begin_deployment(self, new: NewDeployment) -> int:
        """Record a deployment as running, with its revisions and policies, all or nothing; its number."""
        row = {
            "kind": new.kind,
            "forced": new.forced,
            "rollback_on_failure": new.rollback_on_failure,
            "started_at": new.started_at or time.time(),
            "who": new.who,
            "origin": new.origin,
            "environment": new.environment,
            "services": dump(new.services),
            "before": dump_map(new.before),
            "after": dump_map(new.after),
            "plan": new.plan,
            "settings": dump(dict(new.settings)),
        }
        with self._sql.transaction():
            self._put_revisions(new.revisions)
            self._put_policies(new.policies)
            return int(self._sql.all("insert_deployment", row)[0][0])

    def update_after(self, number: int, entries: ServiceMap) -> None:
        """Change the map that a running deployment is to reach."""
        self._sql.run("update_after", {"number": number, "after": dump_map(entries)})

    def set_plan(self, number: int, text: str) -> None:
        """Keep the plan as text, secrets redacted."""
        self._sql.run("set_plan", {"number": number, "plan": text})

    def finish_deployment(
        self,
        number: int,
        *,
        status: str,
        good: bool,
        report: Mapping[str, Any],
        final_map: ServiceMap | None = None,
    ) -> None:
        """Record the end. ``final_map``: what holds now; None: ``before`` if rolled back, else ``after``."""
        row = {
            "number": number,
            "status": status,
            "good": good,
            "report": dump(report),
            "finished_at": time.time(),
            "final": None if final_map is None else dump_map(final_map),
        }
        self._sql.run("finish_deployment", row)

    # ------------------------------------------------------------------ trace and cache

    def write_trace(self, rows: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        """Write (statement, parameters) in their order in one commit; only ``EventWriter`` calls this."""
        with self._sql.transaction():
            for name, parameters in rows:
                self._sql.run(name, parameters)

    def resolved_put(self, digest: str, text: str) -> None:
        """Keep a resolved config; the five newest stay."""
        with self._sql.transaction():
            self._sql.run("resolved_put", {"digest": digest, "project": text, "used_at": time.time()})
            self._sql.run("resolved_prune", {"keep": RESOLVED_KEPT})


def _path(directory: Path | str) -> str:
    return os.path.join(directory, FILE)


def _missing(path: str) -> StateError:
    return StateError(
        f"There is no state at {path}",
        meaning="Nothing of this project was ever deployed from here",
        remedy="Run `deploy-code deploy` first",
    )
