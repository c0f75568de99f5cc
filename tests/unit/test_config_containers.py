"""What a file says of containers, and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from config_kit import complaints, load, project
from deploy_code.config.content import with_hashes
from deploy_code.config.resolve import resolve
from deploy_code.model import Build, Content, Network, Resources, Volume

WHOLE = """
    name: shop
    infrastructure:
      container_runtime: podman
      network: {cidr: 10.9.0.0/16, dns_servers: [9.9.9.9]}
    deployment: {retained_revisions: 3}
    services:
      web:
        image: "web:1"
        command: /bin/web
        args: [--fast]
        pull: Always
        extra_hosts: {legacy: 192.0.2.7}
        cap_add: [net_bind_service]
        cap_drop: [all]
        read_only: true
        privileged: true
        init: true
        shm_size_mb: 128
        labels: {team: a}
        log_driver: local
        log_options: {max-size: 1m}
        resources: {memory_mb: 64, pids: 50}
        health_check: {disabled: true}
        volumes:
          - {name: data, mount_path: /data}
          - {name: conf, mount_path: /etc/web.conf, source: web.conf, read_only: true}
          - {name: tmp, mount_path: /tmp, tmpfs: true, size_mb: 5}
    """


def test_all_that_is_written_of_a_container_arrives_in_the_model(tmp_path: Path) -> None:
    found = project(tmp_path, WHOLE)
    web = found.services["web"]
    made = web.content.container
    assert found.settings.retained_revisions == 3
    assert (web.content.command, web.content.args, web.content.working_dir) == ("/bin/web", ("--fast",), "")
    assert made.runtime == "podman" and (made.engine, made.image_id) == ("", "")
    assert made.network.cidr == "10.9.0.0/16" and made.network.dns_servers == ("9.9.9.9",)
    assert (made.cap_add, made.cap_drop) == (("NET_BIND_SERVICE",), ("ALL",))
    assert (made.read_only, made.privileged, made.init, made.shm_size_mb) == (True, True, True, 128)
    assert (made.extra_hosts, made.labels) == ({"legacy": "192.0.2.7"}, {"team": "a"})
    assert (made.log_driver, made.log_options) == ("local", {"max-size": "1m"})
    assert web.content.resources == Resources(memory_mb=64, pids=50)
    assert web.content.volumes == (
        Volume(name="data", mount_path="/data"),
        Volume(name="conf", mount_path="/etc/web.conf", source=str(tmp_path / "web.conf"), read_only=True),
        Volume(name="tmp", mount_path="/tmp", tmpfs=True, size_mb=5),
    )
    assert web.policy.pull == "always" and web.policy.health.disabled


def test_what_the_file_does_not_say_of_a_network_is_left_to_the_runtime(tmp_path: Path) -> None:
    found = project(tmp_path, "name: shop\nservices: {web: {image: 'web:1'}}")
    assert found.services["web"].content.container.network == Network(name="shop")
    assert found.services["web"].policy.stop_signal == "", "the image may say one"


def test_a_written_subnet_is_a_network_of_its_own(tmp_path: Path) -> None:
    one = project(tmp_path, WHOLE).services["web"].content.container.network.name
    other = project(tmp_path, WHOLE.replace("10.9.", "10.8.")).services["web"].content.container.network.name
    assert one.startswith("shop-") and other.startswith("shop-") and one != other


def test_the_network_of_the_host_has_no_name_and_no_subnet(tmp_path: Path) -> None:
    text = "infrastructure: {network: {mode: host, cidr: 10.0.0.0/8}}\nservices: {web: {image: 'web:1'}}"
    content = project(tmp_path, text).services["web"].content
    assert content.container.network == Network(mode="Host")
    assert content.is_container and not content.has_own_network


def test_a_build_makes_a_container_and_its_context_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    text = "services: {a: {build: app}, b: {build: {context: app, dockerfile: D, args: {X: 1}, target: t}}}"
    found = project(tmp_path, text).services
    assert found["a"].content.service_type == "container"
    assert found["a"].content.container.build == Build(context=str(tmp_path / "app"))
    built = found["b"].content.container.build
    assert built == Build(context=str(tmp_path / "app"), dockerfile="D", args={"X": "1"}, target="t")


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("{command: x, pull: always}", "services.a.pull S003 'pull' is for containers, and this is a process"),
        ("{command: x, read_only: true}", "services.a.read_only S003 'read_only' is for containers"),
        ("{command: x, volumes: [{name: d, mount_path: d, source: s}]}", "volumes[0].source S003 'source' is for"),
        ("{image: x, release: .}", "services.a.release S003 'release' is for processes"),
        ("{image: x, volumes: [{name: d, mount_path: data}]}", "'data' is no absolute path of a container"),
        ("{image: x, volumes: [{name: d, mount_path: /d, source: s, tmpfs: true}]}", "a tmpfs has no source"),
        ("{image: x, volumes: [{name: d, mount_path: /d, size_mb: 1}]}", "size_mb is that of a tmpfs"),
        ("{image: x, pull: sometimes}", "services.a.pull"),
        ("{service_type: container}", "a container needs an image (add image: name:tag, or build: folder)"),
        ("{image: My Shop}", "services.a.image S003 image 'My Shop' is no image reference"),
    ],
)
def test_keys_that_cannot_mean_anything_are_errors(tmp_path: Path, service: str, said: str) -> None:
    found = complaints(tmp_path, f"services: {{a: {service}}}")
    assert len(found) == 1 and said in found[0]


def test_a_container_may_have_a_program_with_spaces_in_its_name(tmp_path: Path) -> None:
    assert complaints(tmp_path, 'services: {a: {image: x, command: "/opt/my app"}}') == []


def test_a_file_that_a_container_only_reads_is_content(tmp_path: Path) -> None:
    (tmp_path / "web.conf").write_text("one")
    found = resolve(load(tmp_path, WHOLE))
    before = with_hashes(found).services["web"]
    (tmp_path / "web.conf").write_text("two")
    after = with_hashes(found).services["web"]
    assert list(before.content.files) == ["web.conf"]
    assert before.run_hash != after.run_hash


# ----------------------------------------------------------------------------------------------------------- run hash


def hashed(**changes: object) -> str:
    from dataclasses import replace

    from deploy_code.model import Container, run_hash

    made = replace(Container(image_id="sha256:a"), **changes)  # type: ignore[arg-type]
    return run_hash(Content(service_type="container", image="web:1", container=made))


def test_another_image_is_another_revision_and_where_it_can_be_pulled_from_says_nothing() -> None:
    assert hashed() != hashed(image_id="sha256:b")
    assert hashed() == hashed(image_digest="web@sha256:c")


def test_a_built_image_is_known_by_what_it_was_built_from() -> None:
    built = Build(context="/app", digest="d1")
    assert hashed(build=built) == hashed(build=built, image_id="sha256:b")
    assert hashed(build=built) != hashed(build=Build(context="/app", digest="d2"))
