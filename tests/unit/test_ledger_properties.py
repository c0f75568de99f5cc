"""Random deployments, allocations, crashes and recoveries: the ledger never promises too much and never forgets."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deploy_code.errors import PreflightError, ServiceError
from deploy_code.model import Resources
from deploy_code.resources.amounts import NOTHING, most, total
from deploy_code.resources.ledger import Ledger
from deploy_code.resources.owners import Owner
from deploy_code.resources.place import path_of
from support.ledgers import IN_MEMORY, SMALL, LedgerProject, amount, anything, child, fits, holders, promises

PROJECTS = ("a", "b")
NAMES = ("x", "y")
amounts = st.builds(
    amount,
    cpu=st.sampled_from([0.0, 0.5, 1.0, 2.5]),
    memory=st.sampled_from([0, 200, 600]),
    storage=st.sampled_from([0, 30]),
    gpus=st.integers(0, 2),
)


class Model:
    """What one project is to have: ``kept`` is settled, ``peak`` is being deployed, ``number`` is its record."""

    def __init__(self) -> None:
        self.kept = NOTHING
        self.peak: Resources | None = None
        self.number = 0

    @property
    def now(self) -> Resources:
        return self.kept if self.peak is None else most(self.kept, self.peak)


class LedgerMachine(RuleBasedStateMachine):
    """Two projects and this process over one ledger. What is forced makes sums meaningless, so nothing is here."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="deploy-code-ledger-", dir=IN_MEMORY))
        self.projects = {name: LedgerProject(self.folder, name) for name in PROJECTS}
        self.models = {name: Model() for name in PROJECTS}
        self.allocated: dict[str, Resources] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # -- deployments

    @rule(name=st.sampled_from(PROJECTS), wanted=amounts, dies=st.booleans(), recorded=st.booleans())
    def begin_deployment(self, name: str, wanted: Resources, dies: bool, recorded: bool) -> None:
        project, model = self.projects[name], self.models[name]
        if model.peak is not None:
            return
        try:
            fits(project.owner, {"web": wanted})(self._seen())
        except PreflightError:
            self._is_refused(project, wanted)
            return
        child(lambda: project.reserve(wanted)) if dies else project.reserve(wanted)
        if recorded:
            model.number = project.begin(wanted)
        if recorded or not dies:
            model.peak = wanted

    def _is_refused(self, project: LedgerProject, wanted: Resources) -> None:
        try:
            project.reserve(wanted)
        except PreflightError:
            return
        raise AssertionError(f"{wanted} does not fit, and was promised")

    @precondition(lambda self: any(each.peak is not None for each in self.models.values()))
    @rule(data=st.data(), rolled_back=st.booleans(), dies=st.booleans())
    def end_deployment(self, data: st.DataObject, rolled_back: bool, dies: bool) -> None:
        """Recovery is the same: what was before is settled. ``dies``: after the record, before the ledger."""
        name = data.draw(st.sampled_from([each for each in PROJECTS if self.models[each].peak is not None]))
        project, model = self.projects[name], self.models[name]
        assert model.peak is not None
        if not model.number:  # refused before it was recorded
            project.settle(model.kept)
            model.peak = None
            return
        project.finish(model.number, rolled_back=rolled_back)
        final = model.kept if rolled_back else model.peak
        if dies:
            self._say_that_the_deploying_process_died(project)
        else:
            project.settle(final)
        model.kept, model.peak, model.number = final, None, 0

    def _say_that_the_deploying_process_died(self, project: LedgerProject) -> None:
        with closing(sqlite3.connect(path_of(str(self.folder)))) as db, db:
            db.execute("UPDATE owners SET start_time = 1 WHERE id = ?", (project.owner.id,))

    # -- allocations by name

    @rule(name=st.sampled_from(NAMES), wanted=amounts)
    def allocate(self, name: str, wanted: Resources) -> None:
        owner = Owner.this_process()
        with Ledger.open(str(self.folder)) as ledger:
            try:
                ledger.allocate(owner, name, wanted, gpus=SMALL.gpus, check=fits(owner, {f"new {name}": wanted}))
            except ServiceError as error:
                assert error.code == "S002" and name in self.allocated
            except PreflightError:
                pass
            else:
                self.allocated[name] = wanted

    @rule(name=st.sampled_from(NAMES))
    def release(self, name: str) -> None:
        with Ledger.open(str(self.folder)) as ledger:
            try:
                ledger.release(Owner.this_process(), name)
            except ServiceError as error:
                assert error.code == "S001" and name not in self.allocated
            else:
                del self.allocated[name]

    # -- deaths

    @rule(wanted=amounts)
    def a_process_dies_with_all_that_it_holds(self, wanted: Resources) -> None:
        def work() -> None:
            with Ledger.open(str(self.folder)) as ledger:
                ledger.allocate(Owner.this_process(), "doomed", wanted, gpus=SMALL.gpus, check=anything)

        child(work)

    @rule()
    def a_writer_dies_before_it_commits(self) -> None:
        def work() -> None:
            db = sqlite3.connect(path_of(str(self.folder)), isolation_level=None)
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM promises")
            db.execute("DELETE FROM devices")
            os._exit(0)

        Ledger.open(str(self.folder)).close()
        child(work)

    @rule(name=st.sampled_from(PROJECTS))
    def a_project_is_deleted(self, name: str) -> None:
        shutil.rmtree(self.projects[name].folder)
        self._is_exact(without=name)
        self._write()
        self.projects[name], self.models[name] = LedgerProject(self.folder, name), Model()

    # -- what always holds

    def _seen(self):
        with Ledger.open(str(self.folder)) as ledger:
            return ledger.promises()

    def _write(self) -> None:
        """Any write puts right what the dead have left."""
        with Ledger.open(str(self.folder)) as ledger:
            ledger.release_ports(Owner.this_process())

    def _expected(self, without: str = "") -> dict[str, Resources]:
        process = Owner.this_process().name
        projects = {f"{name}/web": model.now for name, model in self.models.items() if name != without}
        found = {label: each for label, each in projects.items() if each != NOTHING}
        return found | {f"{process}/{name}!": each for name, each in self.allocated.items()}

    def _is_exact(self, without: str = "") -> None:
        assert promises(self.folder) == self._expected(without)

    @invariant()
    def nothing_is_leaked_before_or_after_the_next_write(self) -> None:
        self._is_exact()
        self._write()
        self._is_exact()

    @invariant()
    def never_more_is_promised_than_there_is(self) -> None:
        taken = total(promises(self.folder).values())
        assert 0 <= taken.cpu_cores <= SMALL.cpu_cores
        assert 0 <= taken.memory_mb <= SMALL.memory_mb
        assert 0 <= taken.storage_gb <= SMALL.storage_gb
        assert 0 <= taken.gpu_count <= len(SMALL.gpus)

    @invariant()
    def every_gpu_has_one_holder_at_most_and_everyone_as_many_as_promised(self) -> None:
        held = holders(self.folder)
        given = [gpu for gpus in held.values() for gpu in gpus]
        assert len(given) == len(set(given)) and set(given) <= set(SMALL.gpus)
        counts = {label.rstrip("!"): each.gpu_count for label, each in promises(self.folder).items()}
        assert {label: len(gpus) for label, gpus in held.items()} == {k: v for k, v in counts.items() if v}


TestLedger = pytest.mark.timeout(600)(LedgerMachine.TestCase)  # it forks much; a failure takes its time to shrink
TestLedger.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
