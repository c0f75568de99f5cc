"""The status and health mappings as text."""

import json
import time

import yaml

from deploy_code.cli.status_text import change_line, status_text
from deploy_code.orchestrator.health_text import health_text, render


def service(**more):
    return {
        "status": "running",
        "health": "healthy",
        "ready": 1,
        "replicas": 1,
        "revision": 3,
        "restarts": 0,
        "uptime_seconds": 75.0,
        "ports": [8080],
        "one_shot": False,
        "deployed": True,
        "detail": "",
        "circuit": {"state": "closed", "retry_at": 0.0, "reason": ""},
        **more,
    }


def mapping(services, **more):
    return {
        "project": "shop",
        "environment": "production",
        "overall_health": "healthy",
        "total_services": len(services),
        "deployed_services": len(services),
        "running_services": len(services),
        "failed_services": 0,
        "deployment": 12,
        "deployment_status": "completed",
        "deployment_complete": True,
        "agent_running": True,
        "notes": [],
        "circuits": [],
        "services": services,
        **more,
    }


def test_a_headline_and_a_row_a_service():
    text = status_text(mapping({"api": service(), "db": service(ports=[5432], restarts=2)}))
    assert text.splitlines() == [
        "shop (production): healthy, 2 of 2 running, deployment 12 completed",
        "",
        "SERVICE  STATUS   HEALTH   READY  REVISION  UPTIME      RESTARTS  PORTS",
        "api      running  healthy  1/1    r3        1 min 15 s  0         8080",
        "db       running  healthy  1/1    r3        1 min 15 s  2         5432",
    ]


def test_what_is_wrong_is_said_in_the_row():
    failed = service(status="failed", health="unhealthy", ready=0, uptime_seconds=0.0, detail="exit code 3")
    text = status_text(mapping({"api": failed}, overall_health="unhealthy", failed_services=1, running_services=0))
    assert "unhealthy, 0 of 1 running, 1 failed" in text
    assert text.splitlines()[-1].endswith("exit code 3")


def test_a_one_shot_that_is_done_is_completed_not_stopped():
    shot = service(status="stopped", health="none", one_shot=True, detail="completed", ports=[], uptime_seconds=0.0)
    assert status_text(mapping({"migrate": shot})).splitlines()[-1].split() == [
        "migrate",
        "completed",
        "r3",
        "0",
    ]


def test_notes_stand_below_the_table():
    text = status_text(mapping({"api": service()}, notes=["no agent is running"]))
    assert text.splitlines()[-1] == "note: no agent is running"


def test_without_services_there_is_no_table():
    text = status_text(mapping({}, deployment=0, overall_health="unknown", notes=["nothing was deployed yet"]))
    assert text.splitlines() == [
        "shop (production): unknown, 0 of 0 running",
        "",
        "note: nothing was deployed yet",
    ]


def test_no_line_is_wider_than_the_terminal():
    text = status_text(mapping({"api": service(detail="x" * 200)}), width=80)
    assert max(map(len, text.splitlines())) <= 80


def test_detailed_shows_each_instance():
    instance = {
        "index": 0,
        "revision": 3,
        "phase": "unready",
        "pid": 41,
        "ports": {"8080": 30001},
        "address": "",
        "published": {},
        "container": "",
        "restarts": 2,
        "started_at": 1.0,
        "ready_at": 0.0,
        "exit": "exit code 1",
        "note": "",
        "log": "/logs/api.0.log",
        "uuid": "u",
        "circuit": "half-open",
        "next_start_at": 0.0,
        "probe": {
            "kind": "http",
            "target": "http://localhost/h",
            "status": 500,
            "detail": "no db",
            "duration": 0.002,
        },
        "memory_bytes": 3 * 2**20,
        "cpu_seconds": 1.25,
    }
    text = status_text(mapping({"api": service(instances=[instance])}), detailed=True)
    assert "api r3 #0: unready" in text
    assert "process   pid 41, up" in text and "3 MB, 1.2 s of CPU" in text
    assert "ports     8080 at 30001" in text
    assert "probe     http http://localhost/h failed (500) in 2 ms: no db" in text
    assert "exit      exit code 1" in text
    assert "circuit   circuit half-open, one try is made" in text
    assert "log       /logs/api.0.log" in text


def test_an_open_circuit_says_when_the_next_try_comes():
    circuit = {"state": "open", "retry_at": time.time() + 250.4, "reason": "exit code 1"}
    row = status_text(mapping({"api": service(detail="exit code 1", circuit=circuit)})).splitlines()[-1]
    assert row.endswith("circuit open, next try in 4 min 10 s; exit code 1")
    due = service(circuit={**circuit, "retry_at": 1.0})
    assert change_line("api", due).endswith("circuit open, next try is due")


def test_circuits_that_are_of_no_service_are_listed():
    circuit = {"protects": "the docker socket", "state": "half-open", "retry_at": 0.0, "reason": "refused"}
    text = status_text(mapping({"api": service()}, circuits=[circuit]))
    assert text.splitlines()[-1] == "the docker socket: circuit half-open, one try is made (last: refused)"


def test_a_change_is_one_line():
    assert change_line("api", service()).endswith("  api  running  healthy  1/1  r3")
    assert change_line("api", None).endswith("  api  removed")


def test_health_is_a_verdict_and_its_reasons():
    data = {
        "status": "degraded",
        "score": 50,
        "uptime_hours": 1.5,
        "issues": [
            {
                "severity": "critical",
                "service": "api",
                "message": "failed, 0 of 1 instances ready: exit code 3",
            },
            {"severity": "warning", "service": "", "message": "no agent is running"},
        ],
    }
    assert health_text(data).splitlines() == [
        "degraded: score 50 of 100, up 1.5 h",
        "  critical  api: failed, 0 of 1 instances ready: exit code 3",
        "  warning   no agent is running",
    ]
    assert render(data, "text") == health_text(data)
    assert json.loads(render(data, "json")) == data
    assert yaml.safe_load(render(data, "yaml")) == data
