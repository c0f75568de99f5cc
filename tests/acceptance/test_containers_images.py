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
from support.pulled import own_web
from support.scenarios import last


@pytest.fixture
def shop(harbour: Harbour, registry: Registry, tmp_path: Path) -> Iterator[Harbour]:
    """A project whose user has logged in to the registry, and a repository there that nobody else uses."""
    yield from logged_in(harbour, registry, tmp_path)


@pytest.fixture
def dock_shop(dock: Harbour, registry: Registry, tmp_path: Path) -> Iterator[Harbour]:
    """The same on Docker, for what is alike on every engine."""
    yield from logged_in(dock, registry, tmp_path)


def logged_in(harbour: Harbour, registry: Registry, folder: Path) -> Iterator[Harbour]:
    config = registry.docker_config(folder / "docker")
    harbour.project.env |= {"DOCKER_CONFIG": str(config), "REGISTRY_AUTH_FILE": str(config / "config.json")}
    yield harbour
    harbour.run("stop", "--timeout", "5")
    for tag in ("1", "2", "latest"):
        try:
            harbour.engine.api("DELETE", f"/images/{registry.address}/{harbour.name}/web:{tag}", force="1")
        except ApiError:
            continue


def repository(shop: Harbour) -> str:
    return f"{shop.name}/web"


def test_an_image_is_pulled_with_the_users_credentials_and_the_revision_records_its_digest(
    shop: Harbour, registry: Registry
) -> None:
    digest = registry.push(web(1), f"{repository(shop)}:1")
    name = f"{registry.address}/{repository(shop)}:1"
    said = shop.deploy({"app": page(image=name)}).ok()
    assert f"image {name} pulled in" in said.stderr, said
    assert shop.text("app") == "v1"
    app = shop.project.status("--detailed")["services"]["app"]
    assert app["image_id"] == shop.image_of("app")
    assert app["image_digest"] == f"{registry.address}/{repository(shop)}@{digest}"
    shown = shop.run("history", "show", "1", "--format", "json").ok().stdout
    assert registry.password not in said.output + shown
    assert "pull" not in shop.run("deploy").ok().stderr.lower(), "what is here is not fetched again"


def test_a_rollback_returns_to_that_very_image_even_if_the_tag_has_moved_and_it_was_removed(
    shop: Harbour, registry: Registry
) -> None:
    old, new = (own_web(f"{text} of {shop.name}") for text in ("one", "two"))
    name = f"{registry.address}/{repository(shop)}:1"
    registry.push(old, f"{repository(shop)}:1")
    shop.deploy({"app": page(image=name, pull="always")}).ok()
    first = shop.image_of("app")
    shop.run("deploy").ok()
    assert last(shop.project)["number"] == 1, "nothing has moved, nothing is changed"
    registry.push(new, f"{repository(shop)}:1")
    shop.run("deploy").ok()
    assert shop.text("app") == f"two of {shop.name}", "pull: always takes what the tag means now"
    shop.engine.api("DELETE", f"/images/{old.digest}", force="1")
    shop.run("rollback").ok()
    assert (shop.text("app"), shop.image_of("app")) == (f"one of {shop.name}", first)
    shop.run("stop").ok()
    for each in (old, new):
        shop.engine.api("DELETE", f"/images/{each.digest}", force="1")


def test_a_rollback_to_an_image_that_is_gone_everywhere_changes_nothing(dock_shop: Harbour, registry: Registry) -> None:
    shop, repo = dock_shop, repository(dock_shop)
    old = own_web(repo)
    digest = registry.push(old, f"{repo}:1")
    shop.deploy({"app": page(image=f"{registry.address}/{repo}:1")}).ok()
    shop.deploy({"app": page(2)}).ok()
    shop.engine.api("DELETE", f"/images/{old.digest}", force="1")
    registry.delete(repo, digest)
    refused = shop.run("rollback").exits(1)
    assert "E003" in refused.stderr and "revision r1 runs image" in refused.stderr
    assert shop.text("app") == "v2"


def test_a_look_fetches_nothing_missing_keeps_what_is_here_and_never_does_not_fetch(
    dock_shop: Harbour, registry: Registry
) -> None:
    shop, name = dock_shop, f"{registry.address}/{repository(dock_shop)}:1"
    registry.push(web(1), f"{repository(shop)}:1")
    assert "E003" in shop.deploy({"app": page(image=name, pull="never")}).exits(1).stderr
    shop.write({"app": page(image=name)})
    assert "is not here yet: deploying pulls it" in shop.run("plan").ok().output
    with pytest.raises(ApiError):
        shop.image_id(name)
    shop.run("deploy").ok()
    registry.push(web(2), f"{repository(shop)}:1")
    shop.run("deploy").ok()
    assert shop.text("app") == "v1"
    missing = shop.deploy({"app": page(image=f"{registry.address}/{repository(shop)}:none")}).exits(1)
    assert "E003" in missing.stderr and "services.app.image" in missing.stderr and ":none" in missing.stderr
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


def test_the_live_view_shows_the_pull(dock_shop: Harbour, registry: Registry) -> None:
    registry.push(web(2), f"{repository(dock_shop)}:2")
    dock_shop.write({"app": page(image=f"{registry.address}/{repository(dock_shop)}:2")})
    env = {**os.environ, **dock_shop.project.env, "TERM": "xterm-256color"}
    terminal = pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], "deploy"],
        cwd=str(dock_shop.project.folder),
        env=env,
        dimensions=(30, 120),
        timeout=60,
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


def test_a_build_step_that_fails_shows_what_it_wrote_without_secrets(dock: Harbour) -> None:
    (dock.project.folder / "Dockerfile").write_text(
        "FROM dc-test/busybox:1\nARG TOKEN\nRUN echo the compiler is on strike over $TOKEN >&2; exit 3\n"
    )
    dock.project.env["BUILD_TOKEN"] = "tok-4711-xyz"
    dock.write({"app": {"build": {"context": ".", "args": {"TOKEN": "${BUILD_TOKEN}"}}}})
    run = dock.run("deploy", "--log-level", "debug").exits(1)
    assert "E003" in run.stderr and "the compiler is on strike over" in run.stderr and "RUN" in run.stderr, run
    assert "tok-4711-xyz" not in run.output
    assert dock.names() == []


def test_prune_shows_what_it_will_remove_and_removes_that_and_keeps_what_a_rollback_needs(dock: Harbour) -> None:
    context = dock.project.folder / "app"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM dc-test/web:1\nCOPY page.html /www/index.html\n")
    app = page() | {"build": "./app"}
    del app["image"]
    images = []
    for text in ("one", "two", "three", "four"):
        (context / "page.html").write_text(f"{text} of {dock.name}")
        dock.deploy({"app": app}, deployment={"retained_revisions": 2}).ok()
        images.append(dock.image_of("app"))
    assert len(set(images)) == 4, "nothing is removed but by prune"
    dock.image_id(images[0])
    shown = dock.run("--dry-run", "prune").ok().stdout
    assert f"{dock.name}-app" in shown
    refused = dock.run("prune")
    assert refused.code != 0 and "--yes" in refused.output
    assert all(dock.image_id(image) for image in images)
    done = json.loads(dock.run("prune", "--yes", "--format", "json").ok().stdout)
    assert {item["kind"] for item in done["items"]} >= {"image", "revision"}
    for image in images[:2]:
        with pytest.raises(ApiError):
            dock.image_id(image)
    assert all(dock.image_id(image) for image in images[2:])
    assert dock.text("app") == f"four of {dock.name}"
    assert "app r1 was pruned" in dock.run("rollback", "--to", "1").exits(1).stderr
    dock.run("rollback").ok()
    assert dock.text("app") == f"three of {dock.name}"
    assert dock.image_id("dc-test/web:1"), "never what it did not build or pull"
