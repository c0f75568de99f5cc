"""What a deploy plans for services that have drifted: they start anew, what belongs to nobody ends, all else stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy_code.model import Drift, drift_kind
from deploy_code.plan.observed import Observed
from support.plans import deployed, live, planned, service, text

DB, API = service("db"), service("api", "db", replicas=2)
EXTRA = Drift(service="old", kind="extra", text="extra: processes of no instance (pid 77)", instance="f00")


def drifted(observed: Observed, *drifts: Drift) -> Observed:
    """The same world, in which these were found."""
    services = {
        name: replace(found, drifts=tuple(each for each in drifts if each.service == name and each.kind != "extra"))
        for name, found in observed.services.items()
    }
    return replace(observed, services=services, extra=tuple(each for each in drifts if each.kind == "extra"))


def of(name: str, what: str, *, revision: int = 1, index: int | None = 0) -> Drift:
    return Drift(service=name, kind=drift_kind(what), text=what, revision=revision, index=index)


def test_without_drift_there_is_nothing_to_do() -> None:
    assert planned([DB, API], drifted(deployed([DB, API]))).is_empty


def test_what_has_drifted_starts_anew_and_the_plan_says_why() -> None:
    plan = planned([DB, API], drifted(deployed([DB, API]), of("api", "env changed (FOO)")))
    assert (
        text(plan)
        == """\
        deploy shop: 1 to restart, 1 unchanged
          1. stop api r1                    drifted: env changed (FOO)
          2. start api r1 ×2                drifted: env changed (FOO)  [after 1]
          3. wait until api r1 ×2 is ready  [after 2]
          warning: drift is mended: api r1 #0: env changed (FOO)
        """
    )


def test_the_same_drift_of_all_replicas_is_one_cause_and_a_warning_each() -> None:
    memory = "limits: its memory limit is 128 MB and not 64 MB"
    plan = planned([DB, API], drifted(deployed([DB, API]), of("api", memory, index=0), of("api", memory, index=1)))
    assert plan.causes["api"] == f"drifted: {memory}"
    assert plan.warnings == (f"drift is mended: api r1 #0: {memory}", f"drift is mended: api r1 #1: {memory}")


def test_drift_of_a_revision_that_goes_anyway_is_no_reason() -> None:
    changed = service("api", "db", replicas=2, command="another")
    plan = planned([DB, changed], drifted(deployed([DB, API]), of("api", "env changed (FOO)")))
    assert plan.actions == {"api": "replace"}
    assert plan.causes["api"] == "command api → another"
    assert plan.warnings == ()


def test_of_two_revisions_at_once_the_drifted_one_goes_too() -> None:
    observed = deployed([API], instances=[live(API), live(API, revision=2)])
    plan = planned([API], drifted(observed, of("api", "user changed")))
    assert sorted(step.id for step in plan.steps if step.id.startswith("api/stop")) == ["api/stop-r1", "api/stop-r2"]


def test_what_is_missing_is_left_to_the_counts() -> None:
    plan = planned([DB, API], drifted(deployed([DB, API]), of("api", "missing: exit code 3")))
    assert plan.is_empty


@pytest.mark.parametrize("kind", ["rollback", "restart", "scale", "stop"])
def test_nothing_but_a_deploy_mends_drift(kind: str) -> None:
    observed = drifted(deployed([DB, API]), of("api", "env changed (FOO)"), EXTRA)
    assert planned([DB, API], observed, kind=kind).is_empty


def test_what_belongs_to_nobody_ends_before_anything_starts() -> None:
    web = service("web")
    assert (
        text(planned([DB, web], drifted(deployed([DB]), EXTRA)))
        == """\
        deploy shop: 1 to create, 1 unchanged
          1. end what belongs to no instance  old: extra: processes of no instance (pid 77)
          2. start web r1                     new service  [after 1]
          3. wait until web r1 is ready       [after 2]
          warning: drift is mended: old: extra: processes of no instance (pid 77)
        """
    )


def test_alone_it_is_a_plan_of_its_own() -> None:
    plan = planned([DB], drifted(deployed([DB]), EXTRA))
    assert [(step.kind, step.after) for step in plan.steps] == [("clear", ())]
    assert plan.unchanged == ("db",)
    assert plan.to_dict()["changes"]


def test_only_chosen_services_are_mended() -> None:
    observed = drifted(deployed([DB, API]), of("api", "env changed (FOO)"), of("db", "user changed"), EXTRA)
    plan = planned([DB, API], observed, only=frozenset({"db"}))
    assert plan.actions == {"db": "restart"}
    assert not [step for step in plan.steps if step.kind == "clear"], "what was of another service stays"


def test_with_a_custom_strategy_the_end_of_the_extra_comes_first_too() -> None:
    plan = planned([DB], drifted(deployed([]), EXTRA), strategy="theirs")
    assert [step.kind for step in plan.steps] == ["clear", "custom"]
    assert plan.steps[1].after == (plan.steps[0].id,)


def test_a_stopped_service_stays_stopped_whatever_was_seen_of_it() -> None:
    observed = drifted(deployed([DB], stopped=True), of("db", "env changed (FOO)"))
    goal = replace(observed.of("db").goal, stopped=True)  # type: ignore[type-var]
    assert planned([], observed, goals={"db": goal}).is_empty


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("limits: its memory limit is none and not 64 MB", "limits"),
        ("env changed (FOO)", "env"),
        ("missing: exit code 3", "missing"),
        ("it is paused", "changed"),
        ("", "changed"),
    ],
)
def test_the_first_word_tells_the_kind(words: str, kind: str) -> None:
    assert drift_kind(words) == kind
