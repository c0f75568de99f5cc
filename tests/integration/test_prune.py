"""`prune` removes what nobody returns to any more, and nothing else; `stop --volumes` removes data when told to."""

import pytest

from deploy_code.state.store import Store
from support.engines import left_in_engines
from support.harbour import new_name
from support.pulled import image


@pytest.fixture
def shop(make_project, engine):
    """A project on one engine."""
    made = make_project(new_name(), **engine.env)
    made.engine = engine
    yield made
    forget(made)


@pytest.fixture
def on_docker(make_project, docker):
    """A project on Docker, for what is the same on every engine."""
    made = make_project(new_name(), **docker.env)
    made.engine = docker
    yield made
    forget(made)


def images_of(project):
    """IDs of what was built for the project."""
    filters = {"label": [f"deploy-code.state={project.state}"]}
    return {each["Id"].removeprefix("sha256:") for each in project.engine.api("GET", "/images/json", filters=filters)}


def forget(project):
    """Stop it, and remove what was built for it."""
    project.cli("stop", "--timeout", "5")
    for key in images_of(project):
        project.engine.api("DELETE", f"/images/{key}", force="1")


def write(project, *, keep=1, services=None, **more):
    runtime = {"container_runtime": project.engine.kind.capitalize()}
    project.write(
        {"api": {"build": "app"}} if services is None else services,
        infrastructure=runtime,
        deployment={"retained_revisions": keep},
        **more,
    )


def version(project, text, **more):
    """Deploy another version of the service that is built from the folder ``app``."""
    app = project.folder / "app"
    app.mkdir(exist_ok=True)
    (app / "page").write_text(f"{text} of {project.folder}")  # another test's image of the same content would do
    (app / "Dockerfile").write_text("FROM dc-test/web:1\nCOPY page /www/index.html\n")
    write(project, **more)
    project.cli("deploy").ok()


def pruned(project, *args):
    return project.cli("prune", "--format", "json", *args).ok().json()


def kinds(data):
    return sorted(item["kind"] for item in data["items"])


def recorded(project):
    with Store.open(project.state, read_only=True) as store:
        return store.revisions()


def test_old_revisions_go_with_their_images_but_for_those_that_somebody_tagged_or_uses(shop):
    api = shop.engine.api
    version(shop, "one")
    tagged = next(iter(images_of(shop)))
    version(shop, "two")
    used = next(iter(images_of(shop) - {tagged}))
    version(shop, "three")
    api("POST", f"/images/{tagged}/tag", repo="dc-test-prune/kept", tag="1")
    holder = api("POST", "/containers/create", {"Image": used, "Cmd": ["true"]})["Id"]
    try:
        assert kinds(pruned(shop, "--yes")) == ["revision", "revision"]
        assert recorded(shop) == [("api", 3)]
        assert {tagged, used} < images_of(shop)
    finally:
        api("DELETE", f"/containers/{holder}", force="1")
        api("DELETE", "/images/dc-test-prune/kept:1")
    data = pruned(shop, "--yes")
    assert data["removed"] and kinds(data) == ["image", "image"] and data["size_bytes"] > 0
    assert len(images_of(shop)) == 1
    assert shop.status()["services"]["api"]["status"] == "running"
    assert pruned(shop, "--yes")["items"] == []


def test_a_pulled_image_goes_only_when_no_tag_names_it_any_more(shop, registry, tmp_path):
    folder = registry.docker_config(tmp_path / "docker")
    shop.env |= {"DOCKER_CONFIG": str(folder), "REGISTRY_AUTH_FILE": str(folder / "config.json")}
    name = f"{registry.address}/prune/{tmp_path.name.replace('_', '-').lower()}:1"
    pushed = name.partition("/")[2]
    made = [image(f"{tmp_path}{number}") for number in (1, 2)]
    pulled = {"image": name, "pull": "always", "stop_signal": "SIGKILL"}
    for each, tagged in zip(made, ("dc-test/web:1", "dc-test/web:2"), strict=True):
        registry.push(each, pushed)
        write(shop, services={"api": pulled, "other": {"image": tagged}})
        shop.cli("deploy").ok()
    try:
        data = pruned(shop, "--yes")
        assert kinds(data) == ["image", "revision", "revision"]  # dc-test/web:1 has its tag
        there = {each["Id"].removeprefix("sha256:") for each in shop.engine.api("GET", "/images/json")}
        assert made[0].digest not in there and made[1].digest in there
    finally:
        shop.cli("stop", "--timeout", "5")
        shop.engine.api("DELETE", f"/images/{made[1].digest}", force="1")


def test_networks_and_data_without_a_name_go_when_nobody_uses_them_and_all_else_stays(shop):
    version(shop, "one")
    mark, labels = shop.folder.parent.name, {"deploy-code.state": str(shop.state)}
    shop.engine.api("POST", "/networks/create", {"Name": f"left-{mark}", "Labels": labels})
    strange = f"strange-{mark}"
    volumes = {
        f"anonymous-{mark}": labels,
        f"named-{mark}": {**labels, "com.docker.compose.volume": "data"},
        strange: {"deploy-code.state": "/another/project"},
    }
    for name, own in volumes.items():
        shop.engine.api("POST", "/volumes/create", {"Name": name, "Labels": own})
    data = pruned(shop, "--yes")
    assert [(item["kind"], item["name"][:4]) for item in data["items"]] == [("volume", "anon"), ("network", "left")]
    assert any(left.kind == "network" for left in left_in_engines(shop.folder))  # the one that it runs on
    shop.cli("stop", "--volumes", "--yes").ok()
    assert not [left for left in left_in_engines(shop.folder) if left.kind == "volume"]
    shop.engine.api("DELETE", f"/volumes/{strange}")  # is still there


def test_code_of_old_releases_goes_too(project):
    code = project.folder / "code"
    code.mkdir()
    for text in ("one", "two"):
        (code / "app.sh").write_text(f"#!/bin/sh\n# {text}\nexec sleep 1000\n")
        (code / "app.sh").chmod(0o755)
        project.write({"api": {"command": "./code/app.sh", "release": "code"}}, deployment={"retained_revisions": 1})
        project.cli("deploy").ok()
    data = pruned(project, "--yes")
    assert kinds(data) == ["release", "revision"]
    assert len(list((project.state / "releases").iterdir())) == 1
    project.cli("restart").ok()


def test_nothing_goes_unasked_and_what_goes_is_found_by_the_record_whatever_the_environment_says(on_docker):
    for text in ("one", "two"):
        version(on_docker, text)
    looked = pruned(on_docker, "--dry-run")
    assert not looked["removed"] and kinds(looked) == ["image", "revision"]
    refused = on_docker.cli("prune").exits(2)
    assert "api r1" in refused.stderr and "--yes" in refused.stderr
    assert len(images_of(on_docker)) == 2
    gone = on_docker.cli("prune", "--yes", env={"DOCKER_HOST": "unix:///tmp/no-engine-here.sock"}).ok()
    assert "image" in gone.stdout
    assert len(images_of(on_docker)) == 1


def test_what_is_on_an_engine_that_is_away_stays_and_is_told(private_docker, make_project):
    project = make_project(**private_docker.env)
    project.engine = private_docker
    for text in ("one", "two"):
        version(project, text)
    private_docker.kill()
    looked = pruned(project, "--dry-run")
    assert "image" not in kinds(looked)
    assert any("what lies there stays" in warning for warning in looked["warnings"])
    private_docker.start()
    assert "image" in kinds(pruned(project, "--dry-run"))


def test_a_project_that_was_never_deployed_has_nothing_to_prune(project):
    project.write({"api": {"command": "sleep", "args": ["1"]}})
    assert "never deployed" in project.cli("prune").ok().stdout


# ------------------------------------------------------------------------------------------------------ stop --volumes


def with_data(project):
    services = {"api": {"image": "dc-test/web:1", "volumes": [{"name": "data", "mount_path": "/data"}]}}
    write(project, services=services)
    project.cli("deploy").ok()


def volumes(project):
    return [left.name for left in left_in_engines(project.folder) if left.kind == "volume"]


def test_stop_keeps_named_volumes_unless_it_is_told(shop):
    with_data(shop)
    refused = shop.cli("stop", "--volumes").exits(2)
    assert f"{shop.name}_data" in refused.stderr and "--yes" in refused.stderr
    shop.cli("stop", "--volumes", "--services", "api").exits(2)
    assert shop.status()["services"]["api"]["status"] == "running"  # a refusal stops nothing
    shop.cli("stop").ok()
    assert volumes(shop) == [f"{shop.name}_data"]
    shop.cli("stop", "--volumes", "--yes").ok()
    assert volumes(shop) == []


def test_an_image_that_another_project_needs_stays(on_docker, make_project):
    version(on_docker, "one")
    other = make_project(new_name(), folder=on_docker.folder, **on_docker.engine.env)
    other.engine = on_docker.engine
    write(other)
    other.cli("deploy").ok()  # the same folder, so the same image
    other.cli("stop").ok()
    version(on_docker, "two")
    assert kinds(pruned(on_docker, "--yes")) == ["revision"]
    assert len(images_of(on_docker)) == 2
