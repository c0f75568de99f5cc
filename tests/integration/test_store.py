"""What the state remembers: revisions, deployments, the map of what is wanted, the trace."""

from __future__ import annotations

import pytest

from deploy_code import events
from deploy_code.codec import to_data
from deploy_code.errors import StateError
from deploy_code.model import Build, Container, Content, Instance, Phase, Policy, ServiceSpec
from deploy_code.state.connection import connect
from deploy_code.state.encode import dump_value
from deploy_code.state.rows import EventCursor
from deploy_code.state.store import Store
from deploy_code.state.trace import ROWS, EventWriter
from state_support import ABOUT, begin, entry, finish, service


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "shop"


@pytest.fixture
def store(folder):
    with Store.create(folder, **ABOUT) as store:
        yield store


# --------------------------------------------------------------------------- revisions and policies


def test_equal_content_keeps_its_number_and_new_content_gets_the_next(store):
    old, new = service(version="1"), service(version="2")
    assert store.revision_numbers([old, service("web")]) == {"api": 1, "web": 1}
    store.put_revisions([(1, old)])
    assert store.revision_numbers([old]) == {"api": 1}
    assert store.revision_numbers([new]) == {"api": 2}
    store.put_revisions([(2, new)])
    assert store.known_revisions() == {("api", old.run_hash): 1, ("api", new.run_hash): 2}
    assert store.latest_revisions() == {"api": 2}


def test_what_the_hash_leaves_out_is_brought_up_to_date(store):
    """The same build gives another ID each time, and an instance that starts now needs the ID that is there now."""

    def built(image_id):
        container = Container(build=Build(context="/srv/app", digest="d"), image_id=image_id)
        return ServiceSpec(name="api", content=Content(service_type="container", container=container))

    store.put_revisions([(1, built("sha256:old"))])
    store.put_revisions([(1, built("sha256:new"))])
    assert store.content("api", 1)[0].container.image_id == "sha256:new"


def test_what_is_remembered_of_images_comes_back_until_it_is_forgotten(store):
    store.put_images({"sha256:a": {"arch": "amd64"}, "sha256:b": {}})
    store.put_images({"sha256:b": {"arch": "arm64"}})
    assert store.images(["sha256:a", "sha256:b", "sha256:c"]) == {
        "sha256:a": {"arch": "amd64"},
        "sha256:b": {"arch": "arm64"},
    }
    store.forget_images(["sha256:a"])
    assert store.image_ids() == {"sha256:b"}


def test_a_revision_never_changes(store):
    store.put_revisions([(1, service())])
    store.put_revisions([(1, service()), (7, service())])
    assert store.latest_revisions() == {"api": 1}
    with pytest.raises(StateError):
        store.put_revisions([(1, service(version="other"))])
    assert store.content("api", 1)[0] == service().content


def test_contents_come_back_as_they_were_with_their_secrets(store):
    spec = service(secrets=["s3cr3t"])
    store.put_revisions([(1, spec), (4, service("web"))])
    assert store.content("api", 1) == (spec.content, ("s3cr3t",))
    assert set(store.contents([("api", 1), ("web", 4), ("web", 5)])) == {("api", 1), ("web", 4)}
    assert store.secrets() == {"s3cr3t"}
    with pytest.raises(KeyError):
        store.content("api", 9)


def test_a_map_resolves_to_the_specs_it_stands_for(store):
    api, web = service(replicas=2), service("web", secrets=["x" * 9])
    begin(store, api, web)
    scaled = {"api": entry(api, replicas=5), "web": entry(web)}
    specs = store.specs(scaled)
    assert specs["web"] == web
    assert specs["api"].policy.replicas == 5
    assert specs["api"].content == api.content


# --------------------------------------------------------------------------- deployments


def test_a_deployment_is_begun_with_all_it_needs_or_not_at_all(store):
    begin(store, service())
    with pytest.raises(StateError):
        begin(store, service("web"), service(version="other"))
    assert store.last_deployment().number == 1
    assert store.latest_revisions() == {"api": 1}


def test_a_deployment_is_recorded_from_begin_to_end(store):
    number = begin(store, service())
    running = store.running_deployment()
    assert (running.number, running.status, running.kind, running.final) == (1, "in_progress", "deploy", None)
    assert running.services == ("api",)
    store.set_plan(number, "the plan")
    finish(store, number)
    done = store.deployment(number)
    assert store.running_deployment() is None
    assert (done.status, done.good, done.plan, done.report) == ("completed", True, "the plan", {"n": 1})
    assert done.finished_at >= done.started_at
    assert done.after == done.final == {"api": entry(service())}


def test_what_is_wanted_follows_how_deployments_end(store):
    first, second = {"api": entry(service())}, {"api": entry(service(version="2"), 2)}
    finish(store, begin(store, service()))
    assert store.current_map() == first

    number = begin(store, service(version="2"), revision=2)
    assert store.current_map() == first  # while it runs, and after a crash
    finish(store, number, "rolled_back", good=False)
    assert store.current_map() == first
    assert store.deployment(number).after == second  # what was tried stays known
    assert store.deployment(number).wanted == first

    finish(store, begin(store, service(version="2"), revision=2), "failed", good=False)
    assert store.current_map() == second  # left as it stands

    mixed = {"api": entry(service(), stopped=True), "web": entry(service("web"))}
    finish(store, begin(store, service()), "failed", good=False, final_map=mixed)
    assert store.current_map() == mixed


def test_the_map_to_reach_can_change_under_way(store):
    number = begin(store, service())
    store.update_after(number, {"api": entry(service(), replicas=3)})
    finish(store, number)
    assert store.current_map()["api"].replicas == 3


def test_good_deployments_are_found_newest_first(store):
    for number in range(1, 5):
        finish(store, begin(store, service()), good=number in (1, 3))
    assert store.last_good().number == 3
    assert store.last_good(before=3).number == 1
    assert store.last_good(before=1) is None
    assert [row.number for row in store.deployments(limit=3)] == [4, 3, 2]
    assert store.last_deployment().number == 4
    assert store.deployment(99) is None


# --------------------------------------------------------------------------- trace, events, cache


def test_the_trace_is_written_in_groups(store, folder):
    writer = EventWriter(store, who="me")
    with Store.open(folder, read_only=True) as reader:
        for position in range(ROWS - 1):
            writer.record_step_started(1, position, f"want api {position}", "new")
        assert reader.steps(1) == []
        writer.record_step_finished(1, 0, error="E005 it died")
        assert len(reader.steps(1)) == ROWS - 1
    step = store.steps(1)[0]
    assert (step.step, step.cause, step.error) == ("want api 0", "new", "E005 it died")
    assert step.finished_at >= step.started_at
    assert store.steps(1)[1].finished_at is None


def test_rows_that_could_not_be_written_are_kept_for_the_next_flush(store, folder):
    writer = EventWriter(store)
    writer.record_step_started(1, 0, "want api", "new")
    store._sql._db.execute("PRAGMA busy_timeout = 10")
    other = connect(str(folder / "state.db"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError):
        writer.flush()
    other.execute("ROLLBACK")
    other.close()
    writer.flush()
    writer.flush()
    assert len(store.steps(1)) == 1


def agent_event(store, at, text):
    row = (at, 1, "api", "InstanceChanged", text)
    store._sql._db.execute("INSERT INTO agent_events (at, deployment, service, name, text) VALUES (?,?,?,?,?)", row)


def test_events_of_engine_and_agent_come_in_the_order_of_time(store):
    writer = EventWriter(store, who="me@here")
    writer.record_event(events.WarningRaised(at=10.0, deployment=1, service="api", message="one"))
    writer.record_event(events.WarningRaised(at=30.0, deployment=1, service="web", message="three"), who="other")
    writer.flush()
    agent_event(store, 20.0, "two")
    assert [row.text for row in store.events()] == ["one", "two", "three"]
    assert [row.who for row in store.events()] == ["me@here", "", "other"]
    assert [row.text for row in store.events(limit=2)] == ["two", "three"]
    assert [row.text for row in store.events(since=20.0)] == ["two", "three"]
    assert [row.text for row in store.events(service="api")] == ["one", "two"]

    cursor = EventCursor().past(store.events())
    assert store.events(after=cursor) == []
    agent_event(store, 5.0, "late")
    assert [row.text for row in store.events(after=cursor)] == ["late"]


def test_the_cache_keeps_the_five_newest(store):
    for number in range(7):
        store.resolved_put(f"d{number}", f"text {number}")
    store.resolved_put("d2", "again")
    assert store.resolved_get("d1") is None
    assert [store.resolved_get(f"d{number}") is not None for number in range(2, 7)] == [True] * 5
    assert store.resolved_get("d2") == "again"


# --------------------------------------------------------------------------- what the agent wrote


def test_what_the_agent_recorded_can_be_read(store):
    instance = Instance(uuid="u1", service="api", revision=1, index=0, phase=Phase.READY, ports={"8080": 30001})
    db = store._sql._db
    db.execute("INSERT INTO instances VALUES ('u1', 'api', 1, ?)", (dump_value(instance),))
    db.execute(
        "INSERT INTO wanted (service, revision, replicas, policy, deployment) VALUES ('api', 1, 2, ?, 3)",
        (dump_value(Policy(replicas=2)),),
    )
    db.execute("INSERT INTO one_shots VALUES ('init', 'h1', 'completed', 0, 1.0, 2.0)")
    db.execute("INSERT INTO one_shots VALUES ('init', 'h2', 'failed', 3, 3.0, 4.0)")
    assert store.instances() == [instance]
    assert store.instance_data() == [to_data(instance)]
    wanted = store.wanted_rows()[0]
    assert wanted == ("api", 1, 2, {"replicas": 2}, 3, False)
    assert store.completed_one_shots() == {("init", "h1")}
    assert [shot.outcome for shot in store.one_shots()] == ["completed", "failed"]
