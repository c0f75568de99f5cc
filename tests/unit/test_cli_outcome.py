"""How the end of a deployment is told."""

import json

import pytest

from deploy_code.cli.options import Options
from deploy_code.cli.outcome import conclude
from deploy_code.cli.run import Outcome
from deploy_code.orchestrator.report import DeploymentReport, FailureReport
from deploy_code.plan.plan import Plan, Want
from deploy_code.services.status import DeploymentStatus

ENDED = Outcome(None, False, frozenset())
STEP = Want(id="api/start-r1", service="api", cause="new in the file", revision=1, replicas=1)
PLAN = Plan(project="shop", kind="deploy", steps=(STEP,), actions={"api": "create"}, causes={"api": "new in the file"})


def failed(**more):
    failure = FailureReport(
        service="api", code="E005", message="api r2 #0 died.", skipped=("web",), remedies=("See its log: x",)
    )
    return DeploymentReport(
        status=DeploymentStatus.ROLLED_BACK,
        deployment=12,
        total_services=3,
        duration=8.12,
        failures=[failure],
        errors=[str(failure), "E007 DEPENDENCY_FAILED: web was not started: api, which it needs, failed"],
        plan=PLAN,
        **more,
    )


def test_success_is_one_line_on_stdout(capsys):
    report = DeploymentReport.succeeded(
        deployment=12, total_services=3, deployed_services=3, duration=4.25, plan=PLAN, warnings=["disk nearly full"]
    )
    assert conclude(Options(), report, ENDED) == 0
    said = capsys.readouterr()
    assert said.out == "deploy 12 completed in 4.2 s: 3 of 3 services ready.\n"
    assert said.err == "warning: disk nearly full\n"


def test_nothing_to_do_is_said_so(capsys):
    empty = Plan(project="shop", kind="deploy", unchanged=("api",))
    report = DeploymentReport.succeeded(deployment=12, total_services=1, deployed_services=1, plan=empty)
    assert conclude(Options(), report, ENDED) == 0
    assert capsys.readouterr().out == "Nothing to deploy: 1 of 1 service already as wanted.\n"


def test_a_warning_that_was_shown_on_the_way_is_not_repeated(capsys):
    report = DeploymentReport.succeeded(deployment=12, plan=PLAN, warnings=["seen", "new"])
    conclude(Options(), report, ENDED._replace(warned=frozenset(["seen"])))
    assert capsys.readouterr().err == "warning: new\n"


def test_a_failure_tells_the_root_cause_first_then_how_it_ended_and_where_to_look(capsys):
    assert conclude(Options(config=["prod.yaml"]), failed(), ENDED) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == "E005 SERVICE_START_FAILED: api r2 #0 died."
    assert "  skipped:    web (need api)" in lines
    assert "E007" not in said.err  # who was skipped is in the failure report already
    assert lines[-2] == ("deploy 12 failed and was rolled back: everything it changed is as it was before (8.1 s).")
    assert lines[-1] == "  See more: deploy-code -c prod.yaml history show 12"
    assert said.err.count("E005") == 1


def test_a_failure_is_told_even_when_quiet(capsys):
    conclude(Options(log_level="error"), failed(warnings=["w"]), ENDED)
    said = capsys.readouterr().err
    assert "E005" in said
    assert "warning" not in said


def test_after_ctrl_c_the_exit_code_is_130(capsys):
    assert conclude(Options(), failed(), ENDED._replace(interrupted=True)) == 130


def test_a_deployment_that_was_done_before_ctrl_c_came_is_done(capsys):
    report = DeploymentReport.succeeded(deployment=12, plan=PLAN)
    assert conclude(Options(), report, ENDED._replace(interrupted=True)) == 0


@pytest.mark.parametrize("report", [failed(), DeploymentReport.succeeded(deployment=12, plan=PLAN)])
def test_the_report_is_data_too(report, capsys):
    conclude(Options(format="json"), report, ENDED)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report.to_dict()))


def test_a_dry_run_prints_the_plan_with_causes(capsys):
    report = DeploymentReport.succeeded(plan=PLAN)
    assert conclude(Options(dry_run=True), report, ENDED) == 0
    assert capsys.readouterr().out == f"{PLAN}\n"
    conclude(Options(dry_run=True, format="json"), report, ENDED)
    assert json.loads(capsys.readouterr().out)["steps"][0]["cause"] == "new in the file"
