"""What an agent would write into the state, written for ``FakePlatform``: the planner and ``status`` read it there."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from deploy_code.codec import to_data
from deploy_code.model import Content, Instance, Phase, Wanted, run_hash
from deploy_code.state.connection import Connection
from deploy_code.state.store import FILE

_STATEMENTS = {
    "hasty": "PRAGMA synchronous = OFF",  # it is thrown away after the test
    "put_wanted": "INSERT OR REPLACE INTO wanted (service, revision, replicas, policy, deployment, settled)"
    " VALUES (?, ?, ?, ?, ?, 0)",
    "drop_wanted": "DELETE FROM wanted WHERE service = ? AND revision = ?",
    "settle": "UPDATE wanted SET settled = 1",
    "put_instance": "INSERT OR REPLACE INTO instances (uuid, service, revision, state) VALUES (?, ?, ?, ?)",
    "drop_instance": "DELETE FROM instances WHERE uuid = ?",
    "forget_one_shot": "DELETE FROM one_shots WHERE service = ? AND run_hash = ?",
    "end_one_shot": "INSERT OR REPLACE INTO one_shots (service, run_hash, outcome, exit_code, started_at, finished_at)"
    " VALUES (?, ?, ?, ?, ?, ?)",
}


class FakeRecords:
    """The agent's tables in the state of ``folder``, which is there before anything is wanted."""

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/{FILE}"
        self._opened: Connection | None = None

    @property
    def _sql(self) -> Connection:
        if self._opened is None:
            self._opened = Connection(self._path, _STATEMENTS)
            self._opened.all("hasty")
        return self._opened

    def want(self, deployment: int, wanted: Sequence[Wanted], rerun: Sequence[str]) -> None:
        for each in wanted:
            if not each.replicas:
                self._sql.run("drop_wanted", (each.service, each.revision))
                continue
            policy = json.dumps(to_data(each.policy))
            self._sql.run("put_wanted", (each.service, each.revision, each.replicas, policy, deployment))
            if each.service in rerun:
                self._sql.run("forget_one_shot", (each.service, run_hash(each.content)))

    def settle(self) -> None:
        self._sql.run("settle")

    def put(self, instance: Instance, content: Content | None) -> None:
        """The new state of an instance; ``content``: of its revision, where that is still wanted."""
        if instance.phase is Phase.GONE:
            self._sql.run("drop_instance", (instance.uuid,))
            return
        state = json.dumps(to_data(instance))
        self._sql.run("put_instance", (instance.uuid, instance.service, instance.revision, state))
        ended = {Phase.COMPLETED: "completed", Phase.FAILED: "failed"}.get(instance.phase)
        if content is not None and content.one_shot and ended:
            code = instance.exit.code if instance.exit else None
            row = (instance.service, run_hash(content), ended, code, instance.started_at, time.time())
            self._sql.run("end_one_shot", row)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
