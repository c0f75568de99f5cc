"""Images from the command line: pulled, built, and the very same again after a rollback, whatever tags do meanwhile."""

import uuid

import pytest

from support.harbour import new_name
from support.images import Entry, Image, Layer
from support.images_small import WEB, base, program


def page(text):
    """A web server that answers ``text``; it has no name before it is pushed."""
    files = Layer({"/www/index.html": Entry(text), "/bin/web": program(WEB)})
    return Image("", (base(), files), {"Cmd": ["/bin/web"], "ExposedPorts": {"8080/tcp": {}}})


@pytest.fixture
def shop(make_project, engine, registry, tmp_path):
    """A project of somebody who has logged in to the registry."""
    yield from logged_in(make_project, engine, registry, tmp_path)


@pytest.fixture
def on_docker(make_project, docker, registry, tmp_path):
    """The same on Docker, for what is alike on every engine."""
    yield from logged_in(make_project, docker, registry, tmp_path)


def logged_in(make_project, engine, registry, tmp_path):
    """What it pulled and built is removed afterwards."""
    folder = registry.docker_config(tmp_path / "docker")
    env = {"DOCKER_CONFIG": str(folder), "REGISTRY_AUTH_FILE": str(folder / "config.json")}
    made = make_project(new_name(), **engine.env, **env)
    made.engine, made.registry = engine, registry
    made.repository = f"shop/{uuid.uuid4().hex[:8]}"
    before = {each["Id"] for each in engine.api("GET", "/images/json")}
    yield made
    made.cli("stop", "--timeout", "5")
    for each in engine.api("GET", "/images/json"):
        names = [*(each["RepoTags"] or ()), *(each["RepoDigests"] or ())]
        ours = (each.get("Labels") or {}).get("deploy-code.state") == str(made.state)
        if each["Id"] not in before and (ours or any(made.repository in name for name in names)):
            engine.api("DELETE", f"/images/{each['Id']}", force="1")


def write(project, **service):
    runtime = {"container_runtime": project.engine.kind.capitalize()}
    project.write({"web": service}, infrastructure=runtime)


def name_of(project, tag="1"):
    return f"{project.registry.address}/{project.repository}:{tag}"


def running_image(project):
    """What the one container of the project is made from, and its ID."""
    filters = {"label": [f"deploy-code.state={project.state}"]}
    (found,) = project.engine.api("GET", "/containers/json", filters=filters)
    return found["ImageID"].removeprefix("sha256:")


def test_a_rollback_returns_to_the_very_image_although_the_tag_moved_and_it_was_removed(shop):
    old, new = page("one" + shop.repository), page("two" + shop.repository)
    shop.registry.push(old, f"{shop.repository}:1")
    write(shop, image=name_of(shop), pull="always")
    first = shop.cli("deploy").ok()
    assert f"image {name_of(shop)} pulled in" in first.stderr
    assert running_image(shop) == old.digest
    shop.registry.push(new, f"{shop.repository}:1")
    shop.cli("deploy").ok()
    assert running_image(shop) == new.digest
    shop.engine.api("DELETE", f"/images/{old.digest}", force="1")
    shop.cli("rollback").ok()
    assert running_image(shop) == old.digest
    shop.cli("restart").ok()
    assert running_image(shop) == old.digest


def test_a_rollback_to_an_image_that_is_gone_everywhere_changes_nothing(on_docker):
    old, new = page("one" + on_docker.repository), page("two" + on_docker.repository)
    digest = on_docker.registry.push(old, f"{on_docker.repository}:1")
    write(on_docker, image=name_of(on_docker))
    on_docker.cli("deploy").ok()
    on_docker.registry.push(new, f"{on_docker.repository}:2")
    write(on_docker, image=name_of(on_docker, "2"))
    on_docker.cli("deploy").ok()
    on_docker.engine.api("DELETE", f"/images/{old.digest}", force="1")
    on_docker.registry.delete(on_docker.repository, digest)
    refused = on_docker.cli("rollback").exits(1)
    assert "E003" in refused.stderr and "revision r1 runs image" in refused.stderr
    assert running_image(on_docker) == new.digest


def test_a_plan_pulls_nothing_and_says_what_will_be(on_docker):
    on_docker.registry.push(page(on_docker.repository), f"{on_docker.repository}:1")
    write(on_docker, image=name_of(on_docker))
    planned = on_docker.cli("plan").ok()
    assert "is not here yet: deploying pulls it" in planned.output
    names = [tag for each in on_docker.engine.api("GET", "/images/json") for tag in each["RepoTags"] or ()]
    assert name_of(on_docker) not in names


def test_an_image_that_cannot_be_had_leaves_everything_as_it_is(on_docker):
    write(on_docker, image="dc-test/web:1")
    on_docker.cli("deploy").ok()
    before = running_image(on_docker)
    write(on_docker, image=name_of(on_docker, "missing"))
    refused = on_docker.cli("deploy").exits(1)
    assert (
        "E003" in refused.stderr
        and "services.web.image" in refused.stderr
        and name_of(on_docker, "missing") in refused.stderr
    )
    assert running_image(on_docker) == before
    assert on_docker.status()["services"]["web"]["status"] == "running"


def test_a_folder_is_built_deployed_and_built_anew_when_it_changes(shop):
    app = shop.folder / "app"
    app.mkdir()
    (app / "Dockerfile").write_text("FROM dc-test/web:1\nCOPY page /www/index.html\n")
    (app / "page").write_text("one\n")
    write(shop, build="app")
    assert "built in" in shop.cli("deploy").ok().stderr
    first = running_image(shop)
    again = shop.cli("deploy").ok()
    assert "built in" not in again.stderr and "Nothing to deploy" in again.stdout
    (app / "page").write_text("two\n")
    shop.cli("deploy").ok()
    assert running_image(shop) != first
    shop.cli("rollback").ok()
    assert running_image(shop) == first


def test_secrets_of_a_build_are_in_no_output(on_docker):
    app = on_docker.folder / "app"
    app.mkdir()
    (app / "Dockerfile").write_text("FROM dc-test/busybox:1\nARG TOKEN\nRUN echo key=$TOKEN; exit 1\n")
    write(on_docker, build={"context": "app", "args": {"TOKEN": "${BUILD_TOKEN}"}})
    failed = on_docker.cli("deploy", "--log-level", "debug", env={"BUILD_TOKEN": "tok-4711-xyz"}).exits(1)
    assert "key=" in failed.output
    assert "tok-4711-xyz" not in failed.output
