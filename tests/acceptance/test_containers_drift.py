"""Containers that somebody changed by hand: told by ``status --drift``, mended by a deploy, on both engines."""

from __future__ import annotations

from typing import Any

from support.harbour import BUSYBOX, SLEEP, Harbour, page, shell
from support.wait import wait_until


def drift(it: Harbour, code: int = 4) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = it.run("status", "--drift", "--format", "json").exits(code).json()["drift"]
    return found


def one(it: Harbour, service: str) -> str:
    [container] = it.ids()[service]
    return container


def test_containers_as_they_were_deployed_have_not_drifted(harbour: Harbour) -> None:
    """Whatever an engine adds by itself: defaults of the image, limits in its own units, names of volumes."""
    harbour.deploy(
        {
            "web": page(replicas=2, env={"COLOUR": "blue"}, resources={"memory_mb": 64, "cpu_cores": 0.5, "pids": 50}),
            "worker": shell(
                SLEEP,
                "web",
                env={"WEB": "http://${services.web.host}:${services.web.port}/"},
                volumes=[
                    {"name": "data", "mount_path": "/data"},
                    {"name": "etc", "mount_path": "/hostetc", "source": "/etc", "read_only": True},
                    {"name": "fast", "mount_path": "/fast", "tmpfs": True, "size_mb": 1},
                ],
                cap_drop=["NET_RAW"],
                init=True,
            ),
            "once": shell("exit 0", one_shot=True),
            "process": {"command": "sleep", "args": ["1000"], "min_ready_seconds": 0.1},
        }
    ).ok()
    assert drift(harbour, 0) == []
    harbour.run("agent", "stop").ok()
    notes = harbour.run("status", "--drift", "--format", "json").ok().json()["notes"]
    assert any("web: only an agent can ask about it" in note for note in notes)
    harbour.run("agent", "start").ok()
    assert drift(harbour, 0) == [], "nor for an agent that did not start them"


def test_a_limit_changed_by_hand_is_told_and_mended(dock: Harbour) -> None:
    dock.deploy({"web": page(resources={"memory_mb": 64}), "other": page()}).ok()
    other = one(dock, "other")
    dock.engine.api("POST", f"/containers/{one(dock, 'web')}/update", {"Memory": 32 << 20, "MemorySwap": 32 << 20})
    told = "limits: its memory limit is 32 MB and not 64 MB"
    [found] = drift(dock)
    assert (found["service"], found["kind"], found["text"]) == ("web", "limits", told)
    assert f"drift is mended: web r1 #0: {told}" in dock.run("deploy").ok().output
    assert drift(dock, 0) == []
    assert one(dock, "other") == other, "who has not drifted goes on"


def test_what_was_taken_from_the_network_or_paused_is_told_and_mended(dock: Harbour) -> None:
    dock.deploy({"api": shell(), "idle": shell()}).ok()
    network = f"/networks/{dock.name}/disconnect"
    dock.engine.api("POST", network, {"Container": one(dock, "api")})
    dock.engine.api("POST", f"/containers/{one(dock, 'idle')}/pause")
    assert [(each["service"], each["kind"], each["text"]) for each in drift(dock)] == [
        ("api", "network", f"network: it is not on the network {dock.name}"),
        ("idle", "changed", "it is paused"),
    ]
    dock.run("deploy").ok()
    assert drift(dock, 0) == []
    assert dock.running() == {"api": 1, "idle": 1}


def test_a_container_with_our_labels_that_is_no_instance_is_extra_and_goes(harbour: Harbour) -> None:
    harbour.deploy({"api": shell()}).ok()
    api = one(harbour, "api")
    labels = {
        "deploy-code.project": harbour.name,
        "deploy-code.state": str(harbour.project.state),
        "deploy-code.service": "old",
        "deploy-code.instance": "f00d",
    }
    marked = {"deploy-code.project": harbour.name, "deploy-code.service": "stranger"}
    for name, given in (("old", labels), ("stranger", marked)):
        body = {"Image": BUSYBOX, "Cmd": ["sleep", "1000"], "Labels": given}
        made = harbour.engine.api("POST", "/containers/create", body, name=f"{harbour.name}-{name}")
        harbour.engine.api("POST", f"/containers/{made['Id']}/start")
    try:
        [found] = drift(harbour)
        assert (found["kind"], found["service"]) == ("extra", "old")
        assert found["text"] == f"extra: a container of no instance ({harbour.name}-old)"
        assert "end what belongs to no instance" in harbour.run("plan").ok().output
        harbour.run("deploy").ok()
        assert f"{harbour.name}-old" not in harbour.names()
        assert f"{harbour.name}-stranger" in harbour.names(), "without the label of our state it is somebody else's"
        assert drift(harbour, 0) == []
        assert one(harbour, "api") == api
    finally:
        harbour.engine.api("DELETE", f"/containers/{harbour.name}-stranger", force="1")


def test_one_that_was_removed_by_hand_is_back_soon_and_then_there_is_no_drift(dock: Harbour) -> None:
    dock.deploy({"api": shell(restart={"backoff_seconds": 0.1})}).ok()
    container = one(dock, "api")
    dock.engine.api("DELETE", f"/containers/{container}", force="1")
    wait_until(lambda: dock.running() == {"api": 1} and one(dock, "api") != container, 20)
    wait_until(lambda: dock.run("status", "--drift").code == 0, 20)
