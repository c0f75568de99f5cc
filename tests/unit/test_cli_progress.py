"""The picture of a running deployment, put together from synthetic events."""

from deploy_code import events
from deploy_code.cli.live import PlainView, choose_view, level_of
from deploy_code.cli.options import Options
from deploy_code.cli.progress import ACTIVE, DONE, FAILED, SKIPPED, UNDONE, WAITING, Progress


def started(*services, at=100.0):
    return events.DeploymentStarted(at=at, deployment=12, kind="deploy", services=services)


def step(service, text, at=101.0, cause="new"):
    return events.StepStarted(at=at, deployment=12, service=service, step=text, cause=cause)


def done(service, text, at=103.0, error=""):
    return events.StepFinished(at=at, deployment=12, service=service, step=text, error=error)


def instance(service, phase, detail="", at=102.0, index=0):
    return events.InstanceChanged(
        at=at, deployment=12, service=service, instance=f"{service} r1 #{index}", phase=phase, detail=detail
    )


def progress(*happened):
    view = Progress()
    for event in happened:
        view.apply(event)
    return view


def test_every_service_of_the_run_has_a_row_from_the_start():
    view = progress(started("db", "api"))
    assert [(row.service, row.group, row.state) for row in view.rows.values()] == [
        ("db", WAITING, "waiting"),
        ("api", WAITING, "waiting"),
    ]


def test_a_service_goes_from_waiting_over_starting_to_ready():
    view = progress(started("api"), step("api", "start api r1"), done("api", "start api r1"))
    row = view.rows["api"]
    view.apply(step("api", "wait until api r1 is ready"))
    assert row.group == ACTIVE
    view.apply(instance("api", "starting"))
    assert (row.state, row.health) == ("starting", "starting")
    view.apply(instance("api", "ready"))
    assert (row.state, row.health) == ("ready", "healthy")
    view.apply(done("api", "wait until api r1 is ready", at=105.0))
    assert (row.group, row.elapsed(999.0)) == (DONE, 4.0)


def test_the_worst_instance_speaks_for_the_service():
    view = progress(started("api"), step("api", "start api r1 ×3"))
    for index, phase in enumerate(("ready", "unready", "ready")):
        view.apply(instance("api", phase, index=index))
    assert (view.rows["api"].state, view.rows["api"].health) == ("unready", "unhealthy")


def test_a_failed_step_is_the_cause_that_is_shown():
    view = progress(started("api"), step("api", "start api r1"), done("api", "start api r1", error="E005: it died"))
    row = view.rows["api"]
    assert (row.group, row.state, row.why) == (FAILED, "failed", "E005: it died")


def test_a_skipped_service_says_because_of_whom():
    view = progress(started("web"), events.ServiceSkipped(deployment=12, service="web", reason="E007: api failed"))
    assert (view.rows["web"].group, view.rows["web"].why) == (SKIPPED, "E007: api failed")


def test_a_stop_ends_in_stopped_and_a_one_shot_in_done():
    view = progress(
        started("api", "migrate"),
        step("api", "stop api r1"),
        instance("api", "stopping"),
        instance("api", "gone"),
        done("api", "stop api r1"),
        step("migrate", "run migrate r1 once"),
        instance("migrate", "completed"),
        done("migrate", "run migrate r1 once"),
    )
    assert {row.service: row.state for row in view.rows.values()} == {"api": "stopped", "migrate": "done"}


def test_what_had_no_step_is_unchanged_when_all_went_well():
    view = progress(started("db"), events.DeploymentFinished(deployment=12, kind="deploy", status="completed"))
    assert (view.rows["db"].state, view.count(DONE)) == ("unchanged", 1)


def test_the_phase_is_the_one_that_follows_the_last_completed():
    view = progress(started("db"), events.PhaseCompleted(deployment=12, phase="storage"))
    assert view.phase == "services"


def test_when_not_all_rows_fit_failed_and_active_ones_are_shown_and_the_rest_counted():
    names = [f"s{number:03}" for number in range(200)]
    view = progress(started(*names))
    for name in names[:150]:
        view.apply(step(name, f"start {name} r1"))
    for name in names[:140]:
        view.apply(done(name, f"start {name} r1"))
    view.apply(done("s145", "start s145 r1", error="E005: it died"))
    shown = view.shown(20)
    assert [row.service for row in shown] == [f"s{number}" for number in range(140, 150)]
    assert view.folded(shown) == "140 done, 50 waiting"


def test_failed_rows_come_before_active_ones_when_even_those_do_not_fit():
    names = [f"s{number:02}" for number in range(50)]
    view = progress(started(*names), *(step(name, f"start {name} r1") for name in names))
    view.apply(done("s49", "start s49 r1", error="E005"))
    shown = view.shown(5)
    assert [row.service for row in shown] == ["s00", "s01", "s02", "s03", "s49"]
    assert view.folded(shown) == "45 active"


def test_a_rollback_undoes_what_was_in_flight_and_keeps_the_failure_in_sight():
    view = progress(started("api", "web", "late"), step("api", "start api r1"), step("web", "start web r1"))
    view.apply(done("api", "start api r1", error="E005: it died"))
    view.apply(events.RollbackStarted(deployment=12, reason="it died"))
    for name in ("api", "web"):  # the step of web that was in flight never ends
        view.apply(step(name, f"stop {name} r1", cause="not wanted"))
        view.apply(done(name, f"stop {name} r1"))
    view.apply(events.DeploymentFinished(deployment=12, kind="deploy", status="rolled_back"))
    assert [(row.service, row.group, row.state, row.why) for row in view.rows.values()] == [
        ("api", FAILED, "failed", "E005: it died"),
        ("web", UNDONE, "stopped", "not wanted"),
        ("late", WAITING, "not begun", ""),
    ]


def test_what_was_there_before_shows_as_health_and_only_for_services_of_this_run():
    view = progress(instance("db", "ready"), instance("other", "ready"), started("db", "api"))
    assert [(row.service, row.state, row.health) for row in view.rows.values()] == [
        ("db", "waiting", "healthy"),
        ("api", "waiting", ""),
    ]


def test_a_second_run_begins_with_a_fresh_picture():
    failed = done("old", "start old r1", error="E005")
    view = progress(started("old"), step("old", "start old r1"), failed, started("api"))
    assert list(view.rows) == ["api"]


# --------------------------------------------------------------------------- plain lines


def lines(capsys, level, *happened, redact=str):
    view = PlainView(Options(log_level=level), redact)
    for event in happened:
        view.listen(event)
    return capsys.readouterr().err.splitlines()


HAPPENED = (
    started("api"),
    step("api", "start api r1"),
    instance("api", "starting"),
    instance("api", "ready"),
    done("api", "start api r1"),
    events.WarningRaised(message="no health check", service="api"),
    events.PhaseCompleted(phase="services"),
)


def test_plain_lines_are_those_that_matter(capsys):
    assert lines(capsys, "info", *HAPPENED) == [
        "deploy 12 of 1 services",
        "api r1 #0 starting",
        "api r1 #0 ready",
        "warning: no health check",
    ]


def test_at_debug_every_event_is_a_line_with_its_time(capsys):
    shown = lines(capsys, "debug", *HAPPENED)
    assert len(shown) == len(HAPPENED)
    assert all(line[2] == ":" and line[5] == ":" and line[8] == "." for line in shown)


def test_at_error_only_what_failed_is_said(capsys):
    assert lines(capsys, "error", *HAPPENED, done("api", "start api r1", error="E005 X: it died")) == [
        "start api r1: E005 X: it died"
    ]


def test_what_was_there_before_is_no_news(capsys):
    assert lines(capsys, "info", instance("db", "ready"), started("api")) == ["deploy 12 of 1 services"]


def test_lines_are_redacted_and_cannot_steer_the_terminal(capsys):
    event = instance("api", "exited", detail="hunter2 \x1b[2J")
    shown = lines(capsys, "info", started("api"), event, redact=lambda text: text.replace("hunter2", "***"))[1:]
    assert shown == ["api r1 #0 exited: *** \\x1b[2J"]


def test_without_a_terminal_the_view_is_lines():
    assert isinstance(choose_view(Options(), str), PlainView)


def test_every_kind_of_event_has_a_level():
    assert {level_of(event)[0] for event in HAPPENED} <= {"trace", "debug", "info", "warn", "error"}


# ------------------------------------------------------------------------------------------------------------- images


def fetching(image, doing="pulling", done=0, total=0, at=100.0, output=()):
    return events.ImageProgress(at=at, image=image, doing=doing, done=done, total=total, output=output)


def test_an_image_on_its_way_has_a_line_until_it_is_here():
    view = progress(fetching("redis:7"), fetching("redis:7", done=25, total=100, at=101.0), fetching("app:1"))
    assert [(each.image, each.share, each.began) for each in view.fetches.values()] == [
        ("redis:7", 0.25, 100.0),
        ("app:1", None, 100.0),
    ]
    view.apply(events.ImageReady(image="redis:7", how="pulled", duration=2.0))
    assert [*view.fetches] == ["app:1"]
    view.apply(started("api"))
    assert not view.fetches


def test_lines_tell_that_an_image_is_here_and_not_every_step_of_it(capsys):
    view = PlainView(Options(), str)
    view.listen(fetching("redis:7", done=25, total=100))
    view.listen(fetching("app:1", "step 1/2: RUN make", output=("make: done",)))
    view.listen(events.ImageReady(image="redis:7", how="pulled", duration=2.04))
    assert capsys.readouterr().err == "image redis:7 pulled in 2.0 s\n"


def test_what_a_build_writes_is_shown_line_by_line_where_all_is_to_be_seen(capsys):
    view = PlainView(Options(log_level="debug"), lambda text: text.replace("hunter2", "***"))
    view.listen(fetching("app:1", "step 1/2: RUN make", output=("first", "the key is hunter2 \x1b[2J")))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["app:1: first", "app:1: the key is *** \\x1b[2J"]
