"""Images, from a registry to the container and back to an older one: pull, digest, build, prune. One story each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from support.cli import PROGRAM
from support.engine_api import ApiError
from support.harbour import Harbour, page
from support.image_registry import Registry
from support.images_small import web
from support.scenarios import last


@pytest.fixture
def shop(harbour: Harbour, registry: Registry, tmp_path: Path) -> Iterator[Harbour]:
    """A project whose user has logged in to the registry, and a repository there that nobody else uses."""
    harbour.project.env["DOCKER_CONFIG"] = str(registry.docker_config(tmp_path / "docker"))
    yield harbour
    harbour.run("stop", "--timeout", "5")
    for tag in ("1", "2", "latest"):
        try:
            harbour.engine.api("DELETE", f"/images/{registry.address}/{harbour.name}/web:{tag}", force="1")
        except ApiError:
            continue


def repository(shop: Harbour) -> str:
    return f"{shop.name}/web"


def test_an_image_is_pulled_with_the_users_credentials_which_are_shown_nowhere(
    shop: Harbour, registry: Registry
) -> None:
    registry.push(web(1), f"{repository(shop)}:1")
    name = f"{registry.address}/{repository(shop)}:1"
    said = shop.deploy({"app": page(image=name)}).ok()
    assert "pull" in said.stderr.lower() and name in said.stderr, said
    assert shop.text("app") == "v1"
    shown = shop.run("history", "show", "1", "--format", "json").ok().stdout
    assert registry.password not in said.output + shown
    assert "pull" not in shop.run("deploy").ok().stderr.lower(), "what is here is not fetched again"


def test_the_digest_of_a_pulled_image_is_what_the_revision_records(shop: Harbour, registry: Registry) -> None:
    digest = registry.push(web(1), f"{repository(shop)}:1")
    shop.deploy({"app": page(image=f"{registry.address}/{repository(shop)}:1")}).ok()
    app = shop.project.status("--detailed")["services"]["app"]
    assert app["image_id"] == shop.image_of("app")
    assert app["image_digest"] == f"{registry.address}/{repository(shop)}@{digest}"


def test_a_rollback_returns_to_that_very_image_even_if_the_tag_has_moved(shop: Harbour, registry: Registry) -> None:
    name = f"{registry.address}/{repository(shop)}:1"
    registry.push(web(1), f"{repository(shop)}:1")
    services = {"app": page(image=name, pull="always")}
    shop.deploy(services).ok()
    first, number = shop.image_of("app"), str(last(shop.project)["number"])
    shop.run("deploy").ok()
    assert last(shop.project)["number"] == 1 or shop.image_of("app") == first, "nothing has moved, nothing is changed"
    registry.push(web(2), f"{repository(shop)}:1")
    shop.run("deploy").ok()
    assert shop.text("app") == "v2", "pull: always takes what the tag means now"
    shop.run("rollback", "--to", number).ok()
    assert (shop.text("app"), shop.image_of("app")) == ("v1", first)


def test_a_rollback_fetches_an_image_that_was_removed_by_its_digest(shop: Harbour, registry: Registry) -> None:
    registry.push(web(1), f"{repository(shop)}:1")
    registry.push(web(2), f"{repository(shop)}:2")
    one, two = (f"{registry.address}/{repository(shop)}:{tag}" for tag in "12")
    shop.deploy({"app": page(image=one)}).ok()
    first = shop.image_of("app")
    shop.deploy({"app": page(image=two)}).ok()
    registry.push(web(2), f"{repository(shop)}:1")  # the tag moves away
    shop.engine.api("DELETE", f"/images/{one}", force="1")
    shop.run("rollback").ok()
    assert (shop.text("app"), shop.image_of("app")) == ("v1", first)


def test_pull_missing_keeps_what_is_here_and_never_does_not_fetch(shop: Harbour, registry: Registry) -> None:
    name = f"{registry.address}/{repository(shop)}:1"
    registry.push(web(1), f"{repository(shop)}:1")
    assert "E003" in shop.deploy({"app": page(image=name, pull="never")}).exits(1).stderr
    shop.deploy({"app": page(image=name)}).ok()
    registry.push(web(2), f"{repository(shop)}:1")
    shop.run("deploy").ok()
    assert shop.text("app") == "v1"


def test_pull_always_uses_what_is_here_with_a_warning_when_the_registry_is_away(
    dock: Harbour, registry: Registry, tmp_path: Path
) -> None:
    name = f"127.0.0.1:1/{dock.name}/web:1"
    dock.engine.api("POST", "/images/dc-test/web:1/tag", repo=f"127.0.0.1:1/{dock.name}/web", tag="1")
    try:
        run = dock.deploy({"app": page(image=name, pull="always")}).ok()
        assert "warning" in run.stderr and name in run.stderr
        assert dock.text("app") == "v1"
        dock.run("stop").ok()
    finally:
        dock.engine.api("DELETE", f"/images/{name}", force="1")


def test_the_live_view_shows_the_pull(shop: Harbour, registry: Registry) -> None:
    registry.push(web(2), f"{repository(shop)}:2")
    shop.write({"app": page(image=f"{registry.address}/{repository(shop)}:2")})
    env = {**os.environ, **shop.project.env, "TERM": "xterm-256color"}
    terminal = pexpect.spawn(
        PROGRAM[0], [*PROGRAM[1:], "deploy"], cwd=str(shop.project.folder), env=env, dimensions=(30, 120), timeout=60
    )
    painted = terminal.read().decode(errors="replace")
    terminal.close()
    assert terminal.exitstatus == 0, painted
    assert "pull" in painted.lower() and "completed" in painted


DOCKERFILE = """\
FROM dc-test/web:1 AS plain
ARG GREETING=nobody
RUN echo "built for $GREETING" > /www/index.html
FROM plain AS final
COPY page.html /www/page.html
FROM plain AS other
RUN false
"""


def test_an_image_is_built_from_its_folder_and_again_only_when_it_has_changed(harbour: Harbour) -> None:
    context = harbour.project.folder / "app"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "page.html").write_text("one")
    (context / "notes.txt").write_text("of no matter")
    (context / ".dockerignore").write_text("notes.txt\n")
    build = {"context": "./app", "args": {"GREETING": "the test"}, "target": "final"}
    app = page() | {"build": build}
    del app["image"]
    said = harbour.deploy({"app": app}).ok()
    assert "built" in said.stderr
    assert (harbour.text("app"), harbour.text("app", "/page.html")) == ("built for the test", "one")
    before = harbour.id_of("app")
    (context / "notes.txt").write_text("changed")
    harbour.run("plan", "--detailed-exitcode").ok()
    assert "built" not in harbour.run("deploy").ok().stderr
    assert harbour.id_of("app") == before
    (context / "page.html").write_text("two")
    harbour.run("plan", "--detailed-exitcode").exits(2)
    harbour.run("deploy").ok()
    assert harbour.text("app", "/page.html") == "two"
    (context / "page.html").unlink()
    run = harbour.run("deploy").exits(1)
    assert "E003" in run.stderr and "page.html" in run.stderr, "the step that failed"
    assert harbour.text("app", "/page.html") == "two"
    harbour.run("rollback").ok()
    assert harbour.text("app", "/page.html") == "one", "the image that was built first is still there"


def test_a_build_step_that_fails_shows_what_it_wrote(harbour: Harbour) -> None:
    (harbour.project.folder / "Dockerfile").write_text(
        "FROM dc-test/busybox:1\nRUN echo the compiler is on strike >&2; exit 3\n"
    )
    run = harbour.deploy({"app": {"build": "."}}).exits(1)
    assert "E003" in run.stderr and "the compiler is on strike" in run.stderr and "RUN" in run.stderr, run
    assert harbour.names() == []


def test_prune_shows_what_it_will_remove_and_removes_that_and_keeps_what_a_rollback_needs(harbour: Harbour) -> None:
    context = harbour.project.folder / "app"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM dc-test/web:1\nCOPY page.html /www/index.html\n")
    app = page() | {"build": "./app"}
    del app["image"]
    images = []
    for text in ("one", "two", "three", "four"):
        (context / "page.html").write_text(f"{text} of {harbour.name}")
        harbour.deploy({"app": app}, deployment={"retained_revisions": 2}).ok()
        images.append(harbour.image_of("app"))
    assert len(set(images)) == 4, "nothing is removed but by prune"
    harbour.image_id(images[0])
    shown = harbour.run("--dry-run", "prune").ok().stdout
    assert f"{harbour.name}-app" in shown
    refused = harbour.run("prune")
    assert refused.code != 0 and "--yes" in refused.output
    assert all(harbour.image_id(image) for image in images)
    done = json.loads(harbour.run("prune", "--yes", "--format", "json").ok().stdout)
    assert {item["kind"] for item in done["items"]} >= {"image", "revision"}
    for image in images[:2]:
        with pytest.raises(ApiError):
            harbour.image_id(image)
    assert all(harbour.image_id(image) for image in images[2:])
    assert harbour.text("app") == f"four of {harbour.name}"
    harbour.run("rollback").ok()
    assert harbour.text("app") == f"three of {harbour.name}"
    assert harbour.image_id("dc-test/web:1"), "never what it did not build or pull"
