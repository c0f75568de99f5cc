"""What the planner decides, as the text that people read."""

from __future__ import annotations

import pytest

from deploy_code.errors import ConfigError
from deploy_code.model import Exit, HealthCheck, Phase, Policy, Port, Settings, Volume
from deploy_code.plan.observed import Observed
from deploy_code.plan.reconcile import reconcile
from support.plans import deployed, goal, live, planned, service, target, text

PARALLEL = Settings(strategy="Parallel")


def test_new_services_start_after_what_they_depend_on_is_ready() -> None:
    plan = planned([service("api", "db"), service("db")], settings=PARALLEL)
    assert (
        text(plan)
        == """
        deploy shop: 2 to create
          1. start db r1                new service
          2. wait until db r1 is ready  [after 1]
          3. start api r1               new service  [after 2]
          4. wait until api r1 is ready [after 3]
    """
    )


def test_sequential_goes_one_service_at_a_time_in_dependency_order() -> None:
    plan = planned([service("b"), service("a")])
    assert (
        text(plan)
        == """
        deploy shop: 2 to create
          1. start b r1              new service
          2. wait until b r1 is ready [after 1]
          3. start a r1              new service  [after 2]
          4. wait until a r1 is ready [after 3]
    """
    )


def test_parallel_lets_independent_services_start_at_once() -> None:
    plan = planned([service("a"), service("b")], settings=PARALLEL)
    starts = [step for step in plan.steps if str(step).startswith("start")]
    assert [step.after for step in starts] == [(), ()]


def test_nothing_changed_is_nothing_to_do() -> None:
    services = [service("db"), service("api", "db")]
    plan = planned(services, deployed(services))
    assert plan.is_empty
    assert str(plan) == "deploy shop: nothing to do, 2 unchanged"


def test_a_changed_service_is_recreated_alone_and_its_dependents_keep_running() -> None:
    old = [service("db"), service("api", "db")]
    plan = planned([service("db", command="db2"), service("api", "db")], deployed(old))
    assert (
        text(plan)
        == """
        deploy shop: 1 to replace, 1 unchanged
          1. stop db r1                command db → db2
          2. start db r2               command db → db2  [after 1]
          3. wait until db r2 is ready [after 2]
    """
    )


def test_stops_go_dependents_first_by_the_recorded_graph() -> None:
    old = [service("db"), service("api", "db")]
    plan = planned([service("db", command="x"), service("api", "db", command="y")], deployed(old), settings=PARALLEL)
    assert (
        text(plan)
        == """
        deploy shop: 2 to replace
          1. stop api r1                command api → y
          2. stop db r1                 command db → x  [after 1]
          3. start db r2                command db → x  [after 2]
          4. wait until db r2 is ready  [after 3]
          5. start api r2               command api → y  [after 1, 4]
          6. wait until api r2 is ready [after 5]
    """
    )


def test_sequential_does_not_stop_a_service_before_its_turn() -> None:
    plan = planned([service("a", command="x"), service("b", command="y")], deployed([service("a"), service("b")]))
    stop_b = next(step for step in plan.steps if step.id == "b/stop-r1")
    assert stop_b.after == ("a/ready",)


def test_dependencies_turned_round_are_only_a_policy_and_restart_nothing() -> None:
    plan = planned([service("a", "b"), service("b")], deployed([service("a"), service("b", "a")]))
    assert (
        text(plan)
        == """
        deploy shop: 2 to update
          1. update b r1 in place dependencies changed
          2. update a r1 in place dependencies changed  [after 1]
    """
    )


def test_only_the_health_check_changed_is_an_update_in_place_with_both_values() -> None:
    new = service("api", health=HealthCheck(interval_seconds=5))
    plan = planned([new], deployed([service("api")]))
    assert [str(step) for step in plan.steps] == ["update api r1 in place"]
    assert plan.steps[0].cause == "health.interval_seconds 30 → 5"


def test_only_the_number_of_replicas_changed_is_a_scale() -> None:
    plan = planned([service("api", replicas=3)], deployed([service("api")]))
    assert plan.actions == {"api": "scale"}
    assert plan.causes["api"] == "replicas 1 → 3"


def test_a_dead_service_is_started_again_with_that_cause() -> None:
    api = service("api")
    dead = live(api, phase=Phase.EXITED, exit=Exit(at=1.0, signal=9))
    plan = planned([api], deployed([api], instances=[dead]))
    assert plan.causes["api"] == "instance 0 ended (killed by SIGKILL)"
    assert [str(step) for step in plan.steps] == ["start api r1", "wait until api r1 is ready"]


def test_a_stopped_service_is_started_and_the_plan_says_that_it_was_stopped() -> None:
    api = service("api")
    observed = deployed([api], stopped=True)
    assert planned([api], observed).causes["api"] == "was stopped"


def test_a_removed_service_goes_last_when_everything_new_is_in_place() -> None:
    old = [service("api"), service("worker", "api")]
    plan = planned([service("api"), service("web")], deployed(old))
    assert (
        text(plan)
        == """
        deploy shop: 1 to create, 1 to remove, 1 unchanged
          1. start web r1               new service
          2. wait until web r1 is ready [after 1]
          3. all of the above is in place [after 2]
          4. remove worker              removed from the file  [after 3]
    """
    )


def test_removed_services_go_dependents_first() -> None:
    plan = planned([], deployed([service("db"), service("api", "db")]))
    assert [str(step) for step in plan.steps] == ["remove api", "remove db"]


def test_a_renamed_service_hands_its_port_over_and_the_plan_says_so() -> None:
    port = (Port(container_port=80, host_port=80),)
    plan = planned([service("front", ports=port)], deployed([service("web", ports=port)]))
    assert [str(step) for step in plan.steps] == [
        "remove web",
        "start front r1",
        "wait until front r1 is ready",
    ]
    assert plan.steps[1].after == ("web/remove",)
    assert "port 80/tcp passes from web to front: nobody holds it until front is ready" in plan.notes


def test_two_services_that_had_a_directory_together_do_not_pass_it_to_each_other() -> None:
    data = (Volume(name="data", mount_path="/data"),)
    old = [service("fill", volumes=data), service("web", volumes=data)]
    new = [service("fill", volumes=data, command="f2"), service("web", volumes=data, command="w2")]
    assert not [note for note in planned(new, deployed(old)).notes if "passes from" in note]


def test_two_services_that_swap_their_ports_both_stop_before_either_starts() -> None:
    def pair(one: int, other: int) -> list[object]:
        return [
            service("a", ports=(Port(container_port=one),)),
            service("b", ports=(Port(container_port=other),)),
        ]

    plan = planned(pair(2, 1), deployed(pair(1, 2)))
    steps = [str(step) for step in plan.steps]
    assert max(steps.index("stop a r1"), steps.index("stop b r1")) < min(
        steps.index("start a r2"), steps.index("start b r2")
    )


def test_a_directory_that_changes_hands_is_let_go_before_it_is_taken() -> None:
    data = (Volume(name="data", mount_path="/data"),)
    plan = planned([service("new", volumes=data)], deployed([service("old", volumes=data)]))
    assert plan.steps[1].after == ("old/remove",)


def test_a_removed_dependent_of_a_replaced_service_goes_before_it() -> None:
    old = [service("db"), service("worker", "db")]
    plan = planned([service("db", command="x")], deployed(old))
    assert [str(step) for step in plan.steps][:2] == ["remove worker", "stop db r1"]


def test_a_one_shot_runs_before_those_that_wait_for_its_completion() -> None:
    migrate = service("migrate", "db", one_shot=True)
    plan = planned([service("db"), migrate, service("api", "migrate:completed")], settings=PARALLEL)
    assert (
        text(plan)
        == """
        deploy shop: 2 to create, 1 to run
          1. start db r1                new service
          2. wait until db r1 is ready  [after 1]
          3. run migrate r1 once        has not run yet  [after 2]
          4. start api r1               new service  [after 3]
          5. wait until api r1 is ready [after 4]
    """
    )


def test_a_completed_one_shot_never_runs_again_by_itself_but_does_when_asked() -> None:
    migrate = service("migrate", one_shot=True)
    observed = deployed([], completed=[migrate])
    assert planned([migrate], observed).is_empty
    again = planned([migrate], observed, rerun=frozenset({"migrate"}))
    assert [str(step) for step in again.steps] == ["run migrate r1 again"]


def test_with_services_named_only_they_and_unhealthy_dependencies_are_touched() -> None:
    specs = [service("db"), service("cache"), service("api", "db", "cache"), service("web")]
    old = deployed([service("cache"), service("gone")])
    plan = planned(specs, old, only=frozenset({"api"}))
    assert plan.actions == {"db": "create", "api": "create"}
    assert set(plan.after) == {"db", "api", "cache", "gone"}


def test_a_healthy_dependency_that_changed_is_carried_forward_untouched() -> None:
    plan = planned(
        [service("db", command="x"), service("api", "db")], deployed([service("db")]), only=frozenset({"api"})
    )
    assert plan.actions == {"api": "create"}
    assert plan.after["db"].revision == 1


def test_restart_recreates_the_same_revision() -> None:
    api = service("api")
    plan = planned([api], deployed([api]), kind="restart", recreate=frozenset({"api"}), only=frozenset({"api"}))
    assert [str(step) for step in plan.steps] == ["stop api r1", "start api r1", "wait until api r1 is ready"]
    assert plan.causes["api"] == "restart requested"


def test_a_revision_seen_before_keeps_its_number() -> None:
    old, new = service("api"), service("api", command="x")
    observed = deployed([new], known=[(old, 1), (new, 2)])
    assert planned([old], observed).after["api"].revision == 1
    assert planned([service("api", command="y")], observed).after["api"].revision == 3


def test_a_circle_is_an_error_that_spells_it_out() -> None:
    with pytest.raises(ConfigError, match=r"a → b → a|b → a → b"):
        planned([service("a", "b"), service("b", "a")])


def test_changed_env_is_named_and_its_values_are_not() -> None:
    plan = planned([service("api", env={"TOKEN": "hush-2"})], deployed([service("api", env={"TOKEN": "hush-1"})]))
    assert plan.causes["api"] == "env changed: TOKEN"
    assert "hush" not in str(plan) + str(plan.to_dict())


def test_code_that_a_rollback_cannot_bring_back_is_said() -> None:
    plan = planned([service("api", files={"app.py": "1"})])
    assert plan.notes[-1].startswith("code not kept for api")


def test_the_gap_of_a_service_with_a_port_is_said() -> None:
    port = (Port(container_port=80),)
    plan = planned([service("api", command="x", ports=port)], deployed([service("api", ports=port)]))
    assert plan.notes[0] == "api: nothing answers on port 80 between steps 1 and 3 (old stops before new starts)"


def test_a_rollback_runs_no_one_shots_and_says_which() -> None:
    plan = planned([service("migrate", one_shot=True)], kind="rollback", run_one_shots=False)
    assert plan.is_empty
    assert plan.notes == ("one-shots are never undone or run again by a rollback: migrate",)


def test_a_service_that_was_not_healthy_before_is_restored_without_a_gate() -> None:
    api = service("api")
    broken = live(service("api", command="x"), revision=2)
    observed = deployed(
        [service("api", command="x")], instances=[broken], known=[(api, 1), (service("api", command="x"), 2)]
    )
    plan = planned([api], observed, kind="rollback", ungated=frozenset({"api"}))
    assert plan.steps[-1].gated is False  # type: ignore[attr-defined]


def test_the_plan_as_data_holds_every_step_with_its_cause() -> None:
    data = planned([service("api")]).to_dict()
    assert data["changes"] is True
    assert data["steps"][0] == {
        "id": "api/start",
        "kind": "want",
        "service": "api",
        "text": "start api r1",
        "revision": 1,
        "replicas": 1,
        "cause": "new service",
        "after": [],
    }


def test_an_orphan_that_nobody_recorded_is_removed() -> None:
    stray = live(service("ghost"))
    plan = reconcile(target([]), deployed([], instances=[stray]))
    assert [str(step) for step in plan.steps] == ["remove ghost"]


def test_stop_takes_all_down_dependents_first_and_records_the_wish() -> None:
    services = [service("db"), service("api", "db")]
    observed = deployed(services)
    wanted = target(services, kind="stop", goals={each.name: goal(each, stopped=True) for each in services})
    plan = reconcile(wanted, observed)
    assert [str(step) for step in plan.steps] == ["stop api r1", "stop db r1"]
    assert all(each.stopped for each in plan.after.values())


def test_an_empty_world_and_an_empty_file_need_nothing() -> None:
    assert reconcile(target([]), Observed()).is_empty
    assert Policy().replicas == 1
