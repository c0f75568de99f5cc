"""Custom service types in host programs of the agent: supervised as processes are, through every death of anybody."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy_code.model import Content, Gate, HealthCheck, Instance, Phase, Wanted
from deploy_code.platforms import local
from support.agents import FAST_RESTART, House, alive
from support.custom import calls, custom, hosts, kill_hosts, web
from support.ports import free_port
from support.web import fetch


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.platform.open()
    yield made
    await made.close()
    assert hosts(tmp_path) == []


async def deployed(house: House, content: Content, **policy: object) -> tuple[Wanted, Instance]:
    """One instance of it, ready, the deployment over."""
    wanted = house.wanted("site", content, restart=FAST_RESTART, **policy)
    await house.want(wanted)
    instance = await house.ready("site")
    await house.settle()
    return wanted, instance


# --------------------------------------------------------------------------- a life


async def test_a_custom_service_starts_gets_ready_and_stops(house: House, tmp_path: Path) -> None:
    port = free_port()
    wanted, instance = await deployed(house, web(tmp_path, port))
    assert instance.probe is not None and instance.probe.kind == "handler"
    assert alive(instance.pid) and fetch(f"http://127.0.0.1:{port}/").status == 404
    await house.stop(wanted)
    assert calls(instance) == ["start", "stop"]
    assert not alive(instance.pid)


async def test_a_host_that_is_not_needed_any_more_ends(house: House, tmp_path: Path) -> None:
    other = house.wanted("other", Content(command="/bin/sleep", args=("1000",)))
    wanted, _ = await deployed(house, web(tmp_path, free_port()))
    await house.want(other)
    assert len(hosts(tmp_path)) == 1
    await house.stop(wanted)
    await house.eventually(lambda: hosts(tmp_path) == [])


async def test_what_says_that_it_failed_is_restarted_by_policy(house: House, tmp_path: Path) -> None:
    _, before = await deployed(house, web(tmp_path, free_port()))
    os.kill(before.pid, signal.SIGKILL)
    [after] = await house.until("site", lambda found: found[0].pid not in (0, before.pid) and found[0].ready_at)
    assert after.uuid == before.uuid and after.restarts == 1
    assert calls(after) == ["start", "stop", "start"]
    assert after.exit is not None and after.exit.code == 1


async def test_what_says_that_it_stopped_is_left_alone_with_on_failure(house: House, tmp_path: Path) -> None:
    text = """
    class Once(Service):
        def start(self): pass
        def stop(self): pass
        def health_check(self):
            return "stopped" if os.path.exists(self.config.options["flag"]) else "running"
    """
    flag = tmp_path / "flag"
    restart = replace(FAST_RESTART, policy="on-failure")
    wanted = house.wanted("site", custom(tmp_path, text, "Once", options={"flag": str(flag)}), restart=restart)
    await house.want(wanted)
    await house.ready("site")
    await house.settle()
    flag.touch()
    instance = await house.phase("site", Phase.EXITED)
    assert instance.exit is not None and instance.exit.ok and "STOPPED" in instance.note


async def test_replicas_have_objects_of_their_own_in_one_host(house: House, tmp_path: Path) -> None:
    text = """
    class Each(Service):
        async def start(self):
            return {"index": str(self.config.index)}
        async def stop(self): pass
        async def health_check(self):
            return ServiceStatus.RUNNING if self.memory["index"] == str(self.config.index) else "failed"
    """
    wanted = house.wanted("site", custom(tmp_path, text, "Each"), replicas=3)
    await house.want(wanted)
    await house.ready("site", count=3)
    assert len(hosts(tmp_path)) == 1
    await house.want(replace(wanted, replicas=1))
    await house.until("site", lambda found: len(found) == 1)


async def test_without_a_health_check_of_its_own_the_ordinary_one_holds(house: House, tmp_path: Path) -> None:
    text = """
    class Plain(Service):
        def start(self):
            self.server = subprocess.Popen(
                ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{self.config.port}"],
                env=dict(self.config.env),
                cwd=os.path.dirname(self.config.log_path),
            )
        def stop(self):
            self.server.kill()
            self.server.wait()
    """
    port = free_port()
    content = replace(web(tmp_path, port), handler=custom(tmp_path, text, "Plain").handler)
    wanted, instance = await deployed(house, content)
    assert instance.probe is not None and (instance.probe.kind, instance.pid) == ("tcp", 0)
    await house.stop(wanted)


async def test_what_the_file_asks_for_must_pass_too(house: House, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    content = web(tmp_path, free_port())
    check = replace(house.wanted("x", content).policy.health, command=("test", "-e", str(flag)))
    wanted = house.wanted("site", content, health=replace(check, start_period_seconds=60.0))
    await house.want(wanted)
    await house.until("site", lambda found: found and found[0].probe and found[0].probe.kind == "command")
    flag.touch()
    await house.ready("site")


# --------------------------------------------------------------------------- deaths


async def test_the_death_of_its_host_harms_nothing(house: House, tmp_path: Path) -> None:
    wanted, before = await deployed(house, web(tmp_path, free_port()))
    kill_hosts(tmp_path)
    await house.eventually(lambda: hosts(tmp_path))
    after = await house.ready("site")
    assert (after.pid, after.restarts, calls(after)) == (before.pid, 0, ["start"])
    await house.stop(wanted)
    await house.eventually(lambda: not alive(before.pid))


@pytest.mark.parametrize("way", ["fork", "inherit"])
async def test_what_a_host_leaves_behind_does_not_pass_for_the_host(house: House, tmp_path: Path, way: str) -> None:
    text = """
    class Heir(Service):
        def start(self):
            said(self.config, "start")
            if self.config.options["way"] == "fork":
                pid = os.fork()
                if pid == 0:
                    time.sleep(1000)
                    os._exit(0)
            else:  # as a library does that forks in C: lock and connection go to the child
                for name in os.listdir("/proc/self/fd"):
                    with suppress(OSError):
                        os.set_inheritable(int(name), True)
                folder = os.path.dirname(self.config.log_path)
                env = dict(self.config.env)
                pid = subprocess.Popen(["sleep", "1000"], env=env, cwd=folder, close_fds=False).pid
            return {"pid": str(pid)}

        def stop(self):
            said(self.config, "stop")
            with suppress(ProcessLookupError):
                os.kill(int(self.memory["pid"]), signal.SIGKILL)

        def health_check(self):
            return "running" if lives(self.memory["pid"]) else "failed"
    """
    wanted, before = await deployed(house, custom(tmp_path, text, "Heir", options={"way": way}))
    host = int(before.handler["holder"].split()[0])
    os.kill(host, signal.SIGKILL)
    [after] = await house.until("site", lambda found: found[0].handler["holder"] != before.handler["holder"])
    assert (after.pid, calls(after)) == (before.pid, ["start"])
    await house.stop(wanted)
    assert calls(after) == ["start", "stop"]
    await house.eventually(lambda: not alive(before.pid))


async def test_a_new_agent_takes_over_the_host_that_survived(house: House, tmp_path: Path) -> None:
    wanted, before = await deployed(house, web(tmp_path, free_port()))
    host = hosts(tmp_path)
    await house.end_agent()
    await house.platform.open()
    [after] = house.platform.instances("site")
    assert (after.phase, after.pid, hosts(tmp_path)) == (Phase.READY, before.pid, host)
    await house.stop(wanted)
    assert calls(before) == ["start", "stop"]


async def test_after_the_death_of_agent_and_host_the_object_is_made_anew(house: House, tmp_path: Path) -> None:
    wanted, before = await deployed(house, web(tmp_path, free_port()))
    await house.end_agent()
    kill_hosts(tmp_path)
    await house.platform.open()
    after = await house.ready("site")
    assert (after.pid, calls(after)) == (before.pid, ["start"])
    await house.stop(wanted)
    assert not alive(before.pid)


async def test_what_ended_while_nobody_looked_is_started_again(house: House, tmp_path: Path) -> None:
    _, before = await deployed(house, web(tmp_path, free_port()))
    await house.end_agent()
    kill_hosts(tmp_path)
    os.kill(before.pid, signal.SIGKILL)
    await house.platform.open()
    [after] = await house.until("site", lambda found: found[0].ready_at and found[0].pid != before.pid)
    assert calls(after) == ["start", "stop", "start"]


async def test_an_agent_of_another_version_goes_on_with_the_hosts_of_the_former(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, before = await deployed(house, web(tmp_path, free_port()))
    host = hosts(tmp_path)
    await house.platform.close()
    monkeypatch.setattr(local, "__version__", "99.0.0")
    await house.platform.open()
    [after] = house.platform.instances("site")
    assert (after.phase, after.pid, hosts(tmp_path)) == (Phase.READY, before.pid, host)
    kill_hosts(tmp_path)
    await house.eventually(lambda: hosts(tmp_path))
    await house.end_agent()  # the host it started must not keep its lock
    await house.platform.open()
    await house.ready("site")
    await house.stop(wanted)
    assert calls(before) == ["start", "stop"]


async def test_a_class_of_a_package_is_found_where_whoever_deploys_finds_it(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    content = web(folder, free_port())
    content = replace(content, handler="web:Web")
    await house.platform.close()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    await house.platform.open()
    wanted, before = await deployed(house, content)
    monkeypatch.delenv("PYTHONPATH")
    await house.end_agent()
    kill_hosts(tmp_path)
    await house.platform.open()
    after = await house.ready("site")
    assert after.pid == before.pid
    await house.stop(wanted)


SLOW = """
class Slow(Service):
    async def start(self):
        said(self.config, "start")
        while not os.path.exists(self.config.options["flag"]):
            await asyncio.sleep(0.02)
        said(self.config, "started")
        return {"x": "y"}

    async def stop(self):
        said(self.config, "stop")

    async def health_check(self):
        return ServiceStatus.RUNNING if self.memory == {"x": "y"} else ServiceStatus.FAILED
"""


async def slow(house: House, folder: Path) -> tuple[Wanted, Instance, Path]:
    """An instance in the middle of its start, which ends when the file is there."""
    flag = folder / "flag"
    wanted = house.wanted("site", custom(folder, SLOW, "Slow", options={"flag": str(flag)}))
    await house.want(wanted)
    instance = await house.phase("site", Phase.STARTING)
    await house.eventually(lambda: calls(instance) == ["start"])
    return wanted, instance, flag


async def test_a_start_that_was_under_way_when_the_agent_died_is_not_made_twice(house: House, tmp_path: Path) -> None:
    _, instance, flag = await slow(house, tmp_path)
    await house.end_agent()
    await house.platform.open()
    flag.touch()
    await house.ready("site")
    assert calls(instance) == ["start", "started"]


async def test_a_start_that_was_under_way_when_the_agent_was_told_to_end_goes_on(house: House, tmp_path: Path) -> None:
    _, instance, flag = await slow(house, tmp_path)
    pid = house.agent_pid()
    await house.platform.close()
    os.kill(pid, signal.SIGTERM)
    await house.eventually(lambda: not alive(pid))
    assert [row.phase for row in house.store.instances()] == [Phase.STARTING]
    await house.platform.open()
    flag.touch()
    await house.ready("site")
    assert calls(instance) == ["start", "started"]


async def test_a_start_that_ended_after_the_agent_died_is_found_by_the_next(house: House, tmp_path: Path) -> None:
    _, instance, flag = await slow(house, tmp_path)
    await house.end_agent()
    flag.touch()
    await house.eventually(lambda: "started" in calls(instance))
    await house.platform.open()
    await house.ready("site")
    assert calls(instance) == ["start", "started"]


async def test_after_a_start_that_died_with_agent_and_host_its_stop_cleans_up_first(
    house: House, tmp_path: Path
) -> None:
    _, instance, flag = await slow(house, tmp_path)
    await house.end_agent()
    kill_hosts(tmp_path)
    flag.touch()
    await house.platform.open()
    await house.ready("site")
    assert calls(instance) == ["start", "stop", "start", "started"]


async def test_a_host_that_dies_in_a_start_fails_it_and_another_one_cleans_up(house: House, tmp_path: Path) -> None:
    _, instance, _ = await slow(house, tmp_path)
    kill_hosts(tmp_path)
    failed = await house.phase("site", Phase.EXITED)
    assert failed.note.startswith("E005") and "start()" in failed.note and "slow.py:Slow" in failed.note
    assert calls(instance) == ["start", "stop"]


async def test_after_a_reboot_it_is_asked_first_and_started_only_if_it_has_ended(house: House, tmp_path: Path) -> None:
    _, before = await deployed(house, web(tmp_path, free_port()))
    await house.end_agent()
    house.rewrite(before.but(boot_id="another-boot"))
    await house.platform.open()
    same = await house.ready("site")
    assert calls(same) == ["start"]
    await house.end_agent()
    os.kill(before.pid, signal.SIGKILL)
    house.rewrite(same.but(boot_id="another-boot"))
    await house.platform.open()
    [after] = await house.until("site", lambda found: found[0].ready_at and found[0].started_at > same.started_at)
    assert (after.restarts, after.gate) == (0, Gate.OPEN)


# --------------------------------------------------------------------------- types that misbehave


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def start(self): raise ValueError('no such disk')", "start() raised ValueError: no such disk"),
        ("def start(self): return ['pid', 7]", "start() returned ['pid', 7], and not a mapping of text"),
        ("def start(self): return {'pid': 7}", "start() returned a mapping with 'pid': 7, which is not text"),
        ("def start(self): return {'x': 'y' * 17000}", "bytes to remember, and the limit is 16384"),
        ("async def start(self): raise SystemExit(3)", "start() raised SystemExit(3)"),
        ("async def start(self): raise asyncio.CancelledError", "start() raised it cancelled itself"),
        ("def __init__(self): raise OSError('boom')", "its constructor raised OSError: boom"),
    ],
)
async def test_a_start_that_fails_names_type_method_and_place(
    house: House, tmp_path: Path, body: str, words: str
) -> None:
    text = f"""
    class Bad(Service):
        {body}
        def stop(self): said(self.config, "stop")
    """
    await house.want(house.wanted("site", custom(tmp_path, text, "Bad")))
    failed = await house.phase("site", Phase.EXITED)
    assert failed.note.startswith("E005") and words in failed.note
    assert 'service_type "Bad"' in failed.note and f"{tmp_path}/bad.py:Bad" in failed.note
    assert calls(failed) == ([] if "__init__" in body else ["stop"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 'banana'", "answered 'banana', which is no ServiceStatus"),
        ("raise KeyError('pid')", "health_check() raised KeyError: 'pid'"),
        ("time.sleep(1000)", "health_check() did not answer within 1 s"),
        ("return ServiceStatus.STARTING", "answered STARTING"),
    ],
)
async def test_a_health_check_that_is_no_good_is_a_failed_probe(
    house: House, tmp_path: Path, body: str, words: str
) -> None:
    text = f"""
    class Sick(Service):
        def start(self): pass
        def stop(self): pass
        def health_check(self):
            {body}
    """
    wanted = house.wanted("site", custom(tmp_path, text, "Sick"))
    await house.want(wanted)
    [found] = await house.until("site", lambda found: found and found[0].gate is Gate.FAILED)
    assert found.probe is not None and words in found.probe.detail
    assert found.probe.target == "health_check of Sick"
    await house.stop(wanted)


async def test_a_type_that_cannot_be_imported_fails_the_start_and_names_its_source(
    house: House, tmp_path: Path
) -> None:
    content = custom(tmp_path, "import no_such_module", "Gone")
    await house.want(house.wanted("site", content))
    failed = await house.phase("site", Phase.EXITED)
    assert failed.note.startswith("E005")
    assert content.handler in failed.note and "no_such_module" in failed.note


async def test_a_start_that_hangs_is_broken_off_and_cleaned_up_after(house: House, tmp_path: Path) -> None:
    wanted, instance, _ = await slow(house, tmp_path)
    await house.stop(wanted)
    assert calls(instance) == ["start", "stop"]


async def test_a_stop_that_hangs_is_bounded_and_told_as_a_kill(house: House, tmp_path: Path) -> None:
    text = """
    class Stubborn(Service):
        def start(self): pass
        async def stop(self): await asyncio.sleep(1000)
        def health_check(self): return "running"
    """
    wanted, _ = await deployed(house, custom(tmp_path, text, "Stubborn"), stop_timeout_seconds=1.0)
    await house.stop(wanted)
    await house.eventually(lambda: "InstanceStopped" in house.events())
    [said] = [row.text for row in house.store.events() if row.name == "InstanceStopped"]
    assert "its stop() did not return within 1 s" in said


async def test_a_stop_that_raises_counts_if_the_object_says_that_it_has_ended(house: House, tmp_path: Path) -> None:
    text = """
    class Loud(Service):
        ended = False
        def start(self): pass
        def stop(self):
            self.ended = True
            raise RuntimeError("on the way out")
        def health_check(self): return "stopped" if self.ended else "running"
    """
    wanted, _ = await deployed(house, custom(tmp_path, text, "Loud"))
    await house.stop(wanted)


async def test_a_stop_that_raises_is_told_and_tried_again(house: House, tmp_path: Path) -> None:
    text = """
    class Loath(Service):
        def start(self): pass
        def stop(self):
            said(self.config, "stop")
            if not os.path.exists(self.config.options["flag"]):
                raise RuntimeError("not yet")
        def health_check(self): return "running"
    """
    flag = tmp_path / "flag"
    wanted, instance = await deployed(house, custom(tmp_path, text, "Loath", options={"flag": str(flag)}))
    await house.want(replace(wanted, replicas=0))
    [found] = await house.until("site", lambda found: "not yet" in found[0].note)
    assert found.note.startswith("could not be stopped: ") and "stop() raised RuntimeError" in found.note
    await house.eventually(lambda: len(calls(instance)) == 2)
    flag.touch()
    await house.want(replace(wanted, replicas=0))
    await house.until("site", lambda found: not found)
    await house.eventually(lambda: "InstanceStopped" in house.events())
    assert house.events().count("StopFailed") == 1, "the same failure is told once"


async def test_what_can_never_be_stopped_is_forgotten_if_somebody_asks_for_that(house: House, tmp_path: Path) -> None:
    text = """
    class Never(Service):
        def start(self):
            folder = os.path.dirname(self.config.log_path)
            program = subprocess.Popen(["sleep", "1000"], env=dict(self.config.env), cwd=folder)
            return {"pid": str(program.pid)}
        def stop(self): raise RuntimeError("never")
        def health_check(self): return "running"
    """
    wanted, instance = await deployed(house, custom(tmp_path, text, "Never"))
    await house.want(replace(wanted, replicas=0))
    await house.until("site", lambda found: "never" in found[0].note)
    await house.want(replace(wanted, replicas=0), forget=True)
    await house.until("site", lambda found: not found)
    assert not alive(instance.pid)
    await house.eventually(lambda: "InstanceForgotten" in house.events())
    [said] = [row.text for row in house.store.events() if row.name == "InstanceForgotten"]
    assert "stop() raised RuntimeError: never" in said and "killed: 1" in said
    await house.eventually(lambda: hosts(tmp_path) == [])


async def test_after_a_stop_that_hangs_its_processes_are_killed_but_not_its_host(house: House, tmp_path: Path) -> None:
    text = """
    class Deaf(Service):
        def start(self):
            folder = os.path.dirname(self.config.log_path)
            self.program = subprocess.Popen(["sleep", "1000"], env=dict(self.config.env), cwd=folder)
            said(self.config, self.program.pid)
            return {"pid": str(os.getpid())}
        async def stop(self): await asyncio.sleep(1000)
        def health_check(self): return "running"
    """
    content = custom(tmp_path, text, "Deaf")
    stays = house.wanted("stays", content, stop_timeout_seconds=1.0)
    await house.want(stays)
    await house.ready("stays")
    wanted, instance = await deployed(house, content, stop_timeout_seconds=1.0)
    [program], [host] = calls(instance), hosts(tmp_path)
    await house.stop(wanted)
    assert not alive(int(program)) and hosts(tmp_path) == [host]
    await house.ready("stays")
    await house.stop(stays)


async def test_a_class_that_cannot_be_made_anew_is_not_taken_for_stopped(house: House, tmp_path: Path) -> None:
    text = """
    class Fussy(Service):
        def __init__(self, config):
            if os.path.exists(config.options["flag"]):
                raise OSError("not now")
        def start(self):
            said(self.config, "start")
        def stop(self):
            said(self.config, "stop")
        def health_check(self): return "running"
    """
    flag = tmp_path / "flag"
    patient = HealthCheck(interval_seconds=0.2, timeout_seconds=1.0, retries=1000)
    content = custom(tmp_path, text, "Fussy", options={"flag": str(flag)})
    wanted, instance = await deployed(house, content, health=patient)
    flag.touch()
    kill_hosts(tmp_path)
    await house.until("site", lambda found: "its constructor raised OSError: not now" in found[0].probe.detail)
    await house.want(replace(wanted, replicas=0))
    await house.until("site", lambda found: found[0].note.startswith("could not be stopped"))
    assert calls(instance) == ["start"]
    await house.eventually(lambda: hosts(tmp_path) == [], 20)  # between two tries, as it holds nothing
    flag.unlink()
    await house.want(replace(wanted, replicas=0))
    await house.until("site", lambda found: not found)
    assert calls(instance) == ["start", "stop"]


async def test_a_start_that_comes_back_after_it_was_broken_off_is_cleaned_up_after(
    house: House, tmp_path: Path
) -> None:
    text = """
    class Late(Service):
        def start(self):
            said(self.config, "start")
            while not os.path.exists(self.config.options["flag"]):
                time.sleep(0.02)
            return {"late": "yes"}
        def stop(self):
            said(self.config, "stop", dict(self.memory))
        def health_check(self): return "running"
    """
    flag = tmp_path / "flag"
    other, _ = await deployed(house, web(tmp_path, free_port()))
    content = custom(tmp_path, text, "Late", options={"flag": str(flag)})
    wanted = house.wanted("late", content, stop_timeout_seconds=1.0)
    await house.want(wanted)
    instance = await house.phase("late", Phase.STARTING)
    await house.eventually(lambda: calls(instance) == ["start"])
    await house.stop(wanted)
    assert calls(instance) == ["start", "stop {}"]
    flag.touch()
    await house.eventually(lambda: calls(instance) == ["start", "stop {}", "stop {'late': 'yes'}"])
    await house.eventually(lambda: len(hosts(tmp_path)) == 1)
    await house.stop(other)


async def test_a_restart_is_bounded_as_the_first_start_is(house: House, tmp_path: Path) -> None:
    text = """
    class Stuck(Service):
        async def start(self):
            if os.path.exists(self.config.options["flag"]):
                await asyncio.sleep(1000)
        def stop(self): pass
        def health_check(self): return "failed" if os.path.exists(self.config.options["flag"]) else "running"
    """
    flag = tmp_path / "flag"
    content = custom(tmp_path, text, "Stuck", options={"flag": str(flag)})
    wanted = house.wanted("site", content, restart=FAST_RESTART)
    await house.want(wanted, start_timeout=1.0)
    await house.ready("site")
    await house.settle()
    flag.touch()
    [found] = await house.until("site", lambda found: found[0].note.startswith("E008"), timeout=30)
    assert "its start() did not return within 6 s" in found.note
    flag.unlink()
    await house.ready("site")
    await house.stop(wanted)


async def test_what_goes_wrong_in_the_same_way_for_ever_is_in_the_log_of_the_agent_once(
    house: House, tmp_path: Path
) -> None:
    text = """
    class Sick(Service):
        def start(self): pass
        def stop(self): pass
        def health_check(self):
            said(self.config, "asked")
            raise ValueError("the same again")
    """
    patient = HealthCheck(interval_seconds=0.2, timeout_seconds=1.0, start_period_seconds=60.0)
    wanted = house.wanted("site", custom(tmp_path, text, "Sick"), health=patient)
    await house.want(wanted)
    instance = await house.phase("site", Phase.STARTING)
    await house.eventually(lambda: len(calls(instance)) > 5)
    assert (house.state / "agent.log").read_text().count("ValueError: the same again") == 1
    await house.stop(wanted)


async def test_types_start_with_the_usual_limit_of_open_files(house: House, tmp_path: Path) -> None:
    text = """
    import resource

    class Counting(Service):
        def start(self):
            return {"files": str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])}
        def stop(self): pass
        def health_check(self): return "running"
    """
    wanted, instance = await deployed(house, custom(tmp_path, text, "Counting"))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert memory_of(instance) == {"files": str(soft)}
    await house.stop(wanted)


async def test_a_coroutine_that_blocks_its_host_costs_only_the_host(house: House, tmp_path: Path) -> None:
    text = """
    class Block(Service):
        async def start(self):
            said(self.config, "start")
            return {"made": str(os.getpid())}
        async def stop(self): pass
        async def health_check(self):
            if os.path.exists(self.config.options["flag"]) and self.memory["made"] == str(os.getpid()):
                time.sleep(1000)
            return ServiceStatus.RUNNING
    """
    flag = tmp_path / "flag"
    patient = HealthCheck(interval_seconds=0.2, timeout_seconds=1.0, retries=1000)
    content = custom(tmp_path, text, "Block", options={"flag": str(flag)})
    wanted, instance = await deployed(house, content, health=patient)
    [host] = hosts(tmp_path)
    flag.touch()
    await house.eventually(lambda: not alive(host), timeout=30)
    [after] = await house.until("site", lambda found: found[0].probe.ok, timeout=30)
    assert (after.phase, calls(instance)) == (Phase.READY, ["start"])
    await house.stop(wanted)


async def test_a_host_that_keeps_dying_is_left_alone_for_a_while(house: House, tmp_path: Path) -> None:
    text = "os._exit(1)\nclass Fatal(Service): pass\n"
    restart = replace(FAST_RESTART, max_exits=100)
    wanted = house.wanted("site", custom(tmp_path, text, "Fatal"), restart=restart)
    await house.want(wanted)
    await house.phase("site", Phase.EXITED)
    await house.settle()
    [found] = await house.until("site", lambda found: found[0].note.startswith("E018"), timeout=30)
    assert "fatal.py:Fatal" in found.note and "The next try comes in" in found.note


# --------------------------------------------------------------------------- versions


async def test_old_instances_keep_the_old_code_and_new_ones_get_the_new(house: House, tmp_path: Path) -> None:
    text = """
    class Code(Service):
        def start(self): said(self.config, "VERSION")
        def stop(self): pass
        def health_check(self):
            said(self.config, "VERSION")
            return "running"
    """
    old = custom(tmp_path, text.replace("VERSION", "old"), "Code", files={"code.py": "1"})
    first, before = await deployed(house, old)
    new = custom(tmp_path, text.replace("VERSION", "new"), "Code", files={"code.py": "2"})
    second = house.wanted("site", new, revision=2)
    house.end()
    house.deployment = house.begin()
    await house.want(second)
    await house.ready("site", count=2)
    assert len(hosts(tmp_path)) == 2
    await house.want(replace(second, replicas=0))
    await house.until("site", lambda found: len(found) == 1)
    asked = len(calls(before))
    await house.eventually(lambda: len(calls(before)) > asked + 1)
    assert {"old"} == set(calls(before)[asked + 1 :])
    await house.stop(first)


async def test_two_types_have_two_hosts_and_one_that_dies_harms_no_other(house: House, tmp_path: Path) -> None:
    _, site = await deployed(house, web(tmp_path, free_port()))
    [host] = hosts(tmp_path)
    text = "class Other(Service):\n    def start(self): os._exit(1)\n    def stop(self): pass\n"
    await house.want(house.wanted("other", custom(tmp_path, text, "Other")))
    await house.phase("other", Phase.EXITED, Phase.BACKOFF, timeout=30)
    assert host in hosts(tmp_path) and alive(site.pid)
    await asyncio.to_thread(kill_hosts, tmp_path)
    await house.ready("site")


def memory_of(instance: Instance) -> dict[str, str]:
    memory: dict[str, str] = json.loads(instance.handler["memory"])
    return memory
