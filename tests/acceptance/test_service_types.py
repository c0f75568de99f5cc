"""Service types of one's own: plan, gates, rollback, recovery, restarts, status and logs are those of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.custom import kill_hosts
from support.extensions import HEAD, PAGE, extension, notes, page
from support.ports import answers, free_port, free_ports
from support.project import ProjectFolder
from support.scenarios import (
    agent_pid,
    history,
    instances,
    kill_hard,
    pages,
    pid_of,
    pids,
    sleeper,
    states,
    text_at,
    until,
    until_served,
    web,
)

Program = Callable[..., subprocess.Popen[str]]

OURS = ["./ours.py:Page"]


@pytest.fixture
def shop(project: ProjectFolder, busybox: Path) -> ProjectFolder:
    """A project whose config may use the type ``Page``."""
    extension(project, PAGE)
    pages(project, "v1", "v2")
    return project


def write(project: ProjectFolder, services: dict[str, Any], plugins: list[str] = OURS, **deployment: Any) -> None:
    project.write(services, plugins=plugins, deployment={"timeout_seconds": 10, **deployment})


def said(project: ProjectFolder, service: str = "site") -> list[str]:
    """What objects of the service were called for, from its log."""
    lines = project.cli("logs", service).ok().stdout.splitlines()
    return [line.split("|")[-1].strip().removeprefix(f"{service} ") for line in lines]


# --------------------------------------------------------------------------- like any other service


def test_it_lives_the_life_of_a_process(shop: ProjectFolder) -> None:
    port = free_port()
    write(shop, {"site": page(port), "app": sleeper(dependencies=["site"])})
    plan = shop.cli("plan").ok().stdout
    assert plan.index("start site r1") < plan.index("wait until site r1 is ready") < plan.index("start app r1")
    assert not shop.data_dir.exists(), "a plan starts nothing"
    shop.cli("deploy").ok()
    app = pid_of(shop, "app")
    seen = shop.status("--detailed")["services"]["site"]
    assert (seen["status"], seen["health"], seen["ports"]) == ("running", "healthy", [port])
    assert seen["instances"][0]["pid"] == pid_of(shop, "site") and seen["instances"][0]["memory_bytes"] > 0
    assert text_at(port) == "v1"

    shop.cli("plan", "--detailed-exitcode").ok()
    assert "nothing to do" in shop.cli("plan").ok().stdout
    write(shop, {"site": page(port, "v2"), "app": sleeper(dependencies=["site"])})
    shop.cli("deploy").ok()
    assert text_at(port) == "v2" and pid_of(shop, "app") == app, "only what changed was replaced"
    shop.cli("rollback").ok()
    assert text_at(port) == "v1"
    before = pid_of(shop, "site")
    shop.cli("restart", "--services", "site").ok()
    assert text_at(port) == "v1" and pid_of(shop, "site") != before
    shop.cli("stop").ok()
    assert not answers(port)
    expected = ["starts www/v1", "stops", "starts www/v2", "stops", "starts www/v1", "stops", "starts www/v1", "stops"]
    assert said(shop) == expected


def test_what_depends_on_it_waits_until_it_says_that_it_is_well(shop: ProjectFolder) -> None:
    port = free_port()
    write(shop, {"site": page(port, hold="well"), "app": sleeper(dependencies=["site"])})
    running = shop.start("deploy")
    until_served(port, "v1")
    until(lambda: states(shop).get("site") == "starting", "site to be seen as starting")
    assert "app" not in pids(shop)
    (shop.folder / "well").touch()
    running.communicate(timeout=20)
    assert running.returncode == 0
    assert "app" in pids(shop)


def test_replicas_have_ports_of_their_own_and_scale(shop: ProjectFolder) -> None:
    site = page(0, ports=[{"dynamic": True}], replicas=3)
    write(shop, {"site": site})
    shop.cli("deploy").ok()
    ports = shop.status()["services"]["site"]["ports"]
    assert len(set(ports)) == 3 and all(text_at(port) == "v1" for port in ports)
    shop.cli("scale", "site=1").ok()
    assert sum(answers(port) for port in ports) == 1 == len(pids(shop)["site"])


def test_what_ends_by_itself_is_restarted_by_policy(shop: ProjectFolder) -> None:
    kept, left = free_ports(2)
    once = page(left, restart={"policy": "never"})
    write(shop, {"kept": page(kept), "left": once})
    shop.cli("deploy").ok()
    os.kill(pid_of(shop, "kept"), signal.SIGKILL)
    os.kill(pid_of(shop, "left"), signal.SIGKILL)
    until(lambda: shop.status()["services"]["kept"]["restarts"] == 1, "a restart")
    until_served(kept, "v1")
    until(lambda: states(shop) == {"kept": "running", "left": "failed"}, "one to be back and one to be failed")
    assert not answers(left)


def test_types_of_an_installed_package_need_no_entry_in_the_file(shop: ProjectFolder) -> None:
    site = shop.folder / "site-packages"
    info = site / "shelf-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shelf.py").write_text(HEAD + PAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deploy_code.plugins]\nshelf-page = shelf:Page\n")
    shop.env["PYTHONPATH"] = str(site)
    port = free_port()
    site_v1 = page(port, service_type="shelf-page", options={"folder": str(shop.folder / "www/v1")})
    write(shop, {"site": site_v1}, plugins=[])
    shop.cli("deploy").ok()
    assert text_at(port) == "v1"
    kill_hosts(shop.folder)
    shop.cli("stop").ok()
    assert not answers(port), "its agent finds the package again"


# --------------------------------------------------------------------------- killed in the middle


def test_neither_the_death_of_the_agent_nor_that_of_its_host_is_noticed(shop: ProjectFolder) -> None:
    port = free_port()
    write(shop, {"site": page(port)})
    shop.cli("deploy").ok()
    before = pid_of(shop, "site")
    kill_hard(agent_pid(shop))
    kill_hosts(shop.folder)
    assert text_at(port) == "v1"
    shop.cli("agent", "start").ok()
    until(lambda: states(shop)["site"] == "running", "the next agent to find it")
    assert pid_of(shop, "site") == before and said(shop) == ["starts www/v1"]
    kill_hard(before)
    until(lambda: len(pids(shop).get("site", ())) == 1, "it to be restarted, so it is supervised")
    shop.cli("stop").ok()
    assert not answers(port)


@pytest.mark.parametrize("victim", ["command line", "command line and agent"])
def test_a_deployment_killed_while_it_starts_is_undone_with_its_own_stop(shop: ProjectFolder, victim: str) -> None:
    port, other = free_ports(2)
    write(shop, {"site": page(port)})
    shop.cli("deploy").ok()
    write(shop, {"site": page(port, "v2", hold="never"), "other": page(other, hold="never")}, strategy="Parallel")
    with shop.start("deploy") as running:
        until_served(port, "v2")
        until_served(other, "v1")
        if victim.endswith("agent"):
            os.kill(agent_pid(shop), signal.SIGKILL)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    assert "rolled back" in shop.cli("recover").exits(1).output
    assert text_at(port) == "v1" and not answers(other)
    assert states(shop) == {"site": "running"}
    assert said(shop) == ["starts www/v1", "stops", "starts www/v2", "stops", "starts www/v1"]
    assert history(shop)[0]["status"] == "rolled_back"


def test_a_service_whose_type_is_gone_is_not_lost_and_comes_back_with_it(shop: ProjectFolder) -> None:
    port = free_port()
    write(shop, {"site": page(port)})
    shop.cli("deploy").ok()
    hidden = shop.folder / "ours.py"
    hidden.rename(shop.folder / "hidden")
    kill_hosts(shop.folder)
    refused = shop.cli("deploy").exits(2).stderr
    assert "E002" in refused and "ours.py:Page" in refused
    stopped = shop.cli("stop", "--timeout", "2").exits(1)
    assert "Page" in stopped.output and "ours.py" in stopped.output, stopped
    assert text_at(port) == "v1", "what nobody can stop is not forgotten"
    (shop.folder / "hidden").rename(hidden)
    shop.cli("stop").ok()
    assert not answers(port)


# --------------------------------------------------------------------------- types that go wrong

BAD = {
    "raises": ('raise ValueError("no idea how")', ["E005", "ValueError", "no idea how"]),
    "ends its host": ("os._exit(3)", ["E005", "start()"]),
    "quits": ("sys.exit(4)", ["E005", "start()"]),
    "hangs": ("await asyncio.sleep(1000)", ["E006", "start()"]),
    "gives nonsense": ("return 7", ["E005", "7"]),
    "remembers too much": ('return {"all": "x" * 20000}', ["E005", "16384"]),
}


def test_a_start_that_goes_wrong_is_named_and_everything_is_put_back(shop: ProjectFolder) -> None:
    port, other = free_ports(2)
    write(shop, {"site": page(port), "other": web(other)})
    shop.cli("deploy").ok()
    kept = pid_of(shop, "other")
    for number, (habit, (body, words)) in enumerate(BAD.items()):
        text = f"""
class Bad(Service):
    {"async " * body.startswith("await")}def start(self):
        {body}

    def stop(self):
        note("cleans up after {habit}")
"""
        where = extension(shop, text, file=f"bad{number}.py")
        changed = {"site": page(port, "v2"), "other": web(other), "worse": {"service_type": "Bad"}}
        write(shop, changed, [*OURS, f"./{where.name}:Bad"], timeout_seconds=1.5)
        failed = shop.cli("deploy").exits(1)
        cause = next(line for line in failed.stderr.splitlines() if line.startswith(f"{words[0]} "))
        for word in [*words, "worse r", 'service_type "Bad"', f"{where}:Bad"]:
            assert word in cause, (habit, word, str(failed))
        assert "was rolled back" in failed.output, habit
        assert text_at(port) == "v1" and pid_of(shop, "other") == kept, habit
        assert states(shop) == {"site": "running", "other": "running"}, habit
        assert f"cleans up after {habit}" in notes(shop)
    write(shop, {"site": page(port), "other": web(other)})
    assert "nothing to do" in shop.cli("plan").ok().stdout


ODD = {
    "raises": ('raise ValueError("the gauge is broken")', "the gauge is broken"),
    "gives nonsense": ('return "splendid"', "splendid"),
    "hangs": ("time.sleep(1000)", "health_check"),
    "gives nothing": ("return None", "None"),
}


def test_a_health_check_that_goes_wrong_is_no_yes(shop: ProjectFolder) -> None:
    check = {"interval_seconds": 0.2, "timeout_seconds": 0.3, "retries": 2}
    for number, (habit, (body, word)) in enumerate(ODD.items()):
        text = f"""
class Odd(Service):
    def start(self):
        note("start {habit}")

    def stop(self):
        note("stop {habit}")

    def health_check(self):
        {body}
"""
        where = extension(shop, text, file=f"odd{number}.py")
        write(shop, {"odd": {"service_type": "Odd", "health_check": check}}, [f"./{where.name}:Odd"], timeout_seconds=2)
        failed = shop.cli("deploy").exits(1).output
        assert "E006 HEALTH_CHECK_FAILED" in failed and word in failed, (habit, failed)
        assert 'service_type "Odd"' in failed or "health_check of Odd" in failed, (habit, failed)
        assert notes(shop)[-1] == f"stop {habit}" and f"start {habit}" in notes(shop)


def test_a_stop_that_hangs_holds_nobody_up(shop: ProjectFolder) -> None:
    text = """
class Sticky(Service):
    def start(self):
        return {"a": "b"}

    def stop(self):
        time.sleep(1000)

    def health_check(self):
        return ServiceStatus.RUNNING
"""
    extension(shop, text, file="sticky.py")
    port = free_port()
    sticky = {"service_type": "Sticky", "stop_timeout_seconds": 1, "dependencies": ["site"]}
    write(shop, {"site": page(port), "sticky": sticky}, [*OURS, "./sticky.py:Sticky"])
    shop.cli("deploy").ok()
    done = shop.cli("stop", timeout=30)
    assert "sticky" in done.output
    until(lambda: not answers(port), "the other one to be stopped all the same")
    until(lambda: not shop.leftovers(), "agent and hosts to go")


def test_a_stop_that_raises_is_named_and_what_cannot_be_stopped_can_be_let_go(shop: ProjectFolder) -> None:
    text = """
class Stuck(Service):
    def start(self):
        note("started")

    def stop(self):
        raise OSError("the door is stuck")

    def health_check(self):
        return ServiceStatus.RUNNING
"""
    where = extension(shop, text, file="stuck.py")
    port = free_port()
    stuck = {"service_type": "Stuck", "stop_timeout_seconds": 1}
    write(shop, {"site": page(port), "stuck": stuck}, [*OURS, "./stuck.py:Stuck"], timeout_seconds=2)
    shop.cli("deploy").ok()
    failed = shop.cli("stop").exits(1).stderr
    cause = next(line for line in failed.splitlines() if line.startswith("E008"))
    for word in ("stuck", 'service_type "Stuck"', f"{where}:Stuck", "stop() raised OSError: the door is stuck"):
        assert word in cause, failed
    seen = shop.status()["services"]
    assert seen["site"]["status"] == "stopped" and not answers(port), "the other one is stopped all the same"
    assert "the door is stuck" in seen["stuck"]["detail"], "what is not gone is still shown, with the reason"
    shop.cli("stop", "--force").ok()
    until(lambda: not shop.leftovers(), "agent and hosts to go")


def test_what_cannot_be_imported_is_found_before_anything_is_changed(shop: ProjectFolder) -> None:
    (shop.folder / "broken.py").write_text("class Page(:\n")
    (shop.folder / "raising.py").write_text("raise RuntimeError('no licence')\n")
    (shop.folder / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    cases = {
        "./nowhere.py:Page": ["nowhere.py:Page"],
        "./ours.py:Pager": ["ours.py:Pager"],
        "./broken.py:Page": ["broken.py:Page", "syntax"],
        "./raising.py:Page": ["raising.py:Page", "no licence"],
        "./leaving.py:Page": ["leaving.py:Page"],
        "no.such.module:Page": ["no.such.module:Page"],
        "./ours.py:HERE": ["ours.py:HERE"],
    }
    for entry, words in cases.items():
        write(shop, {"site": page(free_port())}, [entry])
        refused = shop.cli("deploy").exits(2).stderr
        assert refused.startswith("E002 CONFIG_INVALID")
        assert all(word in refused for word in words), refused
    assert not shop.state.exists() or history(shop) == []


def test_the_plan_says_that_its_limits_are_not_ours_to_enforce(shop: ProjectFolder) -> None:
    write(shop, {"site": page(free_port(), resources={"memory_mb": 64})})
    assert "memory of site" in shop.cli("plan").ok().stdout


def test_a_type_that_nobody_registered_is_found_before_anything_is_changed(shop: ProjectFolder) -> None:
    write(shop, {"site": page(free_port(), service_type="Pgae")})
    refused = shop.cli("deploy").exits(1).stderr
    assert "E014" in refused and "services.site.service_type" in refused and "Pgae" in refused and "Page)" in refused
    assert not shop.state.exists() or history(shop) == []


def test_what_a_type_says_of_secrets_is_hidden(shop: ProjectFolder) -> None:
    text = """
class Leaky(Service):
    def start(self):
        raise ValueError(f"cannot log in with {self.config.env['DB_PASSWORD']}")
"""
    extension(shop, text, file="leaky.py")
    write(
        shop, {"leaky": {"service_type": "Leaky", "env": {"DB_PASSWORD": "s3cr3t-of-the-type"}}}, ["./leaky.py:Leaky"]
    )
    failed = shop.cli("deploy").exits(1).output
    assert "cannot log in with" in failed
    for command in (["events"], ["history", "show", "1"], ["status", "--detailed"], ["logs"]):
        failed += shop.cli(*command).output
    assert "s3cr3t-of-the-type" not in failed


# --------------------------------------------------------------------------- registered in code only

PROGRAM = f"""
{HEAD}
{PAGE}
from deploy_code import DeployCode

deployer = DeployCode()
deployer.register_type("Page", lambda config: Page())


async def main():
    if "stop" in sys.argv:
        await deployer.stop()
        return
    report = await deployer.deploy()
    print(report.status, *report.errors, flush=True)


asyncio.run(main())
if "stay" in sys.argv:
    sys.stdin.read()
"""


@pytest.fixture
def embedded(shop: ProjectFolder) -> Iterator[Program]:
    """Runs a program that registers the type and deploys; what it deployed is stopped by another one like it."""
    (shop.folder / "embeds.py").write_text(PROGRAM)

    def run(*args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "embeds.py", *args],
            cwd=shop.folder,
            env={**os.environ, **shop.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    yield run
    with run("stop") as program:
        program.communicate(timeout=60)


def test_from_elsewhere_it_is_known_as_long_as_its_process_lives(shop: ProjectFolder, embedded: Program) -> None:
    port = free_port()
    write(shop, {"site": page(port)}, plugins=[])
    with embedded("stay") as program:
        assert program.stdout is not None and program.stdin is not None
        assert program.stdout.readline().strip() == "completed"
        assert states(shop) == {"site": "running"} and text_at(port) == "v1"
        first = pid_of(shop, "site")
        kill_hard(first)
        until(lambda: pids(shop).get("site", frozenset({first})) != {first}, "it to be restarted by that process")
        program.kill()
        program.communicate()
    until(lambda: states(shop)["site"] == "unknown", "its end to be noticed")
    seen = shop.status()["services"]["site"]
    assert "Page" in seen["detail"] and seen["health"] == "unknown", seen
    assert "unknown" in shop.cli("status").ok().stdout
    assert text_at(port) == "v1", "the service itself is alive and well"
    with embedded() as program:
        assert "completed" in program.communicate(timeout=30)[0]
    assert "stops" not in said(shop)[-1:]


def test_a_recovery_that_needs_it_ends_in_e009_that_names_it(shop: ProjectFolder, embedded: Program) -> None:
    port, late = free_ports(2)
    write(shop, {"site": page(port)}, plugins=[])
    with embedded() as program:
        assert "completed" in program.communicate(timeout=30)[0]
    write(shop, {"site": page(port, "v2", hold="never"), "late": web(late, "site")}, plugins=[])
    with embedded() as program:
        until_served(port, "v2")
        program.kill()
        program.communicate()
    failed = shop.cli("recover").exits(1).output
    assert "E009 ROLLBACK_FAILED" in failed
    assert "site" in failed and "Page" in failed, failed
    assert instances(shop, "site"), "and what stands is still known"
