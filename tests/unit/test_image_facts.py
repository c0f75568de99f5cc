"""What a service takes from its image where its file is silent."""

import pytest

from deploy_code.model import Content, HealthCheck, Policy, Port, ServiceSpec, Volume
from deploy_code.orchestrator.image_facts import (
    ImageFacts,
    completed,
    exposed,
    facts_of,
    runs_on,
    signal_name,
    uncovered,
    without_image,
)

SECOND = 1_000_000_000
CHECK = {"Test": ["CMD-SHELL", "curl -f http://localhost:${PORT}/ || exit 1"], "Interval": 5 * SECOND, "Retries": 2}


def inspected(**config):
    return {"Architecture": "amd64", "Os": "linux", "Config": config}


def service(*, ports=(), policy=None):
    return ServiceSpec(
        name="api",
        content=Content(service_type="container", image="x:1", ports=tuple(ports)),
        policy=policy or Policy(stop_signal=""),
    )


def tcp(number):
    return Port(container_port=number)


def test_exposed_ports_come_tcp_first_and_by_number():
    said = {"9090/udp": {}, "8081": {}, "80/tcp": {}, "7000-7002/tcp": {}, "99/sctp": {}, "x/tcp": {}}
    assert exposed(said) == (
        tcp(80),
        tcp(7000),
        tcp(7001),
        tcp(7002),
        tcp(8081),
        Port(container_port=9090, protocol="udp"),
    )
    assert exposed(None) == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [("SIGINT", "SIGINT"), ("int", "SIGINT"), ("2", "SIGINT"), ("SIGRTMIN+3", "SIGRTMIN+3"), ("", ""), ("999", "999")],
)
def test_a_signal_has_one_name_however_the_image_writes_it(text, name):
    assert signal_name(text) == name


def test_the_images_check_is_ours_with_its_own_numbers():
    facts = facts_of(inspected(Healthcheck=CHECK, Shell=["/bin/bash", "-c"]))
    check = completed(service(), facts).policy.health
    assert check.command == ("/bin/bash", "-c", "curl -f http://localhost:${PORT:-}/ || exit 1")
    assert (check.interval_seconds, check.timeout_seconds, check.retries, check.start_period_seconds) == (5, 30, 2, 0)


def test_podman_tells_of_the_check_beside_the_config():
    data = {**inspected(), "Healthcheck": {"Test": ["CMD", "true"]}}
    assert facts_of(data).health == HealthCheck(command=("true",), interval_seconds=30, timeout_seconds=30)


@pytest.mark.parametrize("test", [["NONE"], [], ["CMD"], None])
def test_an_image_without_a_check_gives_none(test):
    assert facts_of(inspected(Healthcheck={"Test": test})).health is None


@pytest.mark.parametrize(
    "written", [HealthCheck(endpoint="/up"), HealthCheck(command=("test",)), HealthCheck(disabled=True)]
)
def test_what_the_file_says_of_health_wins(written):
    facts = facts_of(inspected(Healthcheck=CHECK))
    assert completed(service(policy=Policy(health=written)), facts).policy.health == written


def test_numbers_of_the_file_hold_for_the_images_check():
    policy = Policy(health=HealthCheck(interval_seconds=1.0, retries=9))
    check = completed(service(policy=policy), facts_of(inspected(Healthcheck=CHECK))).policy.health
    assert (check.command[:1], check.interval_seconds, check.retries, check.timeout_seconds) == (("/bin/sh",), 1, 9, 30)


def test_ports_and_stop_signal_are_the_images_where_the_file_has_none():
    facts = facts_of(inspected(ExposedPorts={"8080/tcp": {}}, StopSignal="INT"))
    taken = completed(service(), facts)
    assert (taken.content.ports, taken.policy.stop_signal) == ((tcp(8080),), "SIGINT")
    own = completed(service(ports=[tcp(1)], policy=Policy(stop_signal="SIGHUP")), facts)
    assert (own.content.ports, own.policy.stop_signal) == ((tcp(1),), "SIGHUP")


def test_without_any_word_a_container_is_asked_to_end_by_sigterm():
    assert completed(service(), ImageFacts()).policy.stop_signal == "SIGTERM"
    assert without_image(service()).policy.stop_signal == "SIGTERM"


def test_data_that_no_volume_covers_is_named():
    content = Content(volumes=(Volume(name="all", mount_path="/var/lib/pg/"), Volume(name="x", mount_path="/var/li")))
    facts = ImageFacts(volumes=("/var/lib/pg/data", "/var/lib", "/cache"))
    assert uncovered(content, facts) == ["/var/lib", "/cache"]


@pytest.mark.parametrize(
    ("image", "machine", "runs"),
    [("amd64", "amd64", True), ("arm64", "amd64", False), ("386", "amd64", True), ("", "amd64", True), ("x", "", True)],
)
def test_an_image_runs_where_its_processor_is(image, machine, runs):
    assert runs_on(ImageFacts(arch=image), machine) is runs
