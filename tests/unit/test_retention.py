"""Which revisions stay: what is wanted, and what a rollback may return to."""

import pytest

from deploy_code.codec import to_data
from deploy_code.model import Settings
from deploy_code.orchestrator.retention import limit, retained
from deploy_code.state.rows import NewDeployment
from deploy_code.state.store import Store
from state_support import ABOUT, entry, finish, service


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "state", **ABOUT) as opened:
        yield opened


def deploy(store, revision, *, names=("api",), good=True, done=True, keep=10):
    """One deployment that brings every service in ``names`` to ``revision``."""
    specs = [service(name, version=str(revision)) for name in names]
    number = store.begin_deployment(
        NewDeployment(
            kind="deploy",
            who="me",
            before=store.current_map(),
            after={spec.name: entry(spec, revision) for spec in specs},
            services=tuple(names),
            revisions=[(revision, spec) for spec in specs],
            policies=[spec.policy for spec in specs],
            settings=to_data(Settings(retained_revisions=keep)),
        )
    )
    if done:
        finish(store, number, good=good)
    return number


def kept(store, keep=None):
    return {number for name, number in retained(store, keep) if name == "api"}


def test_the_newest_stay(store):
    for revision in range(1, 6):
        deploy(store, revision, good=False)
    assert kept(store, 2) == {4, 5}


def test_how_many_is_what_the_last_deployment_went_by(store):
    for revision in range(1, 6):
        deploy(store, revision, keep=3)
    assert limit(store) == 3
    assert kept(store) == {3, 4, 5}


def test_what_the_last_good_deployments_left_stays_however_old(store):
    deploy(store, 1)
    for revision in range(2, 6):
        deploy(store, revision, good=False)
    assert kept(store, 1) == {1, 5}


def test_what_is_wanted_now_stays_although_newer_ones_are_recorded(store):
    deploy(store, 1)
    deploy(store, 2)
    number = deploy(store, 3, done=False)
    store.finish_deployment(number, status="rolled_back", good=False, report={})
    assert kept(store, 1) == {2, 3}


def test_an_unfinished_deployment_keeps_both_its_ends(store):
    for revision in (1, 2, 3):
        deploy(store, revision)
    deploy(store, 4, done=False)
    assert kept(store, 1) == {3, 4}


def test_of_a_service_that_is_gone_the_newest_stays_so_that_no_number_comes_twice(store):
    for revision in (1, 2, 3):
        deploy(store, revision)
    deploy(store, 4, names=("web",))
    assert kept(store, 1) == {3}


def test_at_least_one_stays(store):
    deploy(store, 1)
    deploy(store, 2)
    assert kept(store, 0) == {2}
