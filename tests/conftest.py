"""Fixtures that all tests share. What they are made of lies in ``support``."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from support.engine_daemons import Docker, Engine, Podman, PrivateDocker, PrivatePodman
from support.engine_house import EngineHouse
from support.engines import private_dockers, shared_engines
from support.engines import private_podman as own_podman
from support.image_registry import Registry
from support.needs import need, postgresql_bin
from support.ports import free_port
from support.project import ProjectFolder


@pytest.fixture(autouse=True)
def machine_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What tests promise of this machine is known to this test alone, and nothing is left of it on the machine."""
    monkeypatch.setenv("DEPLOY_CODE_MACHINE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own are not: for services with `user:`."""
    folder = Path(tempfile.mkdtemp(prefix="deploy-code-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_project(tmp_path: Path, open_folder: Path) -> Iterator[Callable[..., ProjectFolder]]:
    """Makes projects, each in its own folder; stops them after the test, and fails it for what is left.

    ``open_folder`` is asked for so that it outlives the projects that lie in it.
    """
    made: list[ProjectFolder] = []

    def make(name: str = "shop", folder: Path | None = None, **env: str) -> ProjectFolder:
        made.append(ProjectFolder(folder or tmp_path / name, name, env))
        return made[-1]

    yield make
    left = [str(each) for project in made for each in project.close()]
    assert not left, "still running after `deploy-code stop`:\n" + "\n".join(left)


@pytest.fixture
def project(make_project: Callable[..., ProjectFolder]) -> ProjectFolder:
    """One project, stopped after the test."""
    return make_project()


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture
def busybox() -> Path:
    """The small web server of most tests: `busybox httpd -f -p 127.0.0.1:PORT`."""
    return need("busybox")


@pytest.fixture
def pg_bin() -> Path:
    """The folder of PostgreSQL's programs."""
    need("postgres")
    folder = postgresql_bin()
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def engine_house() -> Iterator[EngineHouse]:
    """Docker, Podman and a registry, shared by all tests; the first test that asks starts what does not run."""
    with shared_engines() as house:
        yield house


@pytest.fixture
def docker(engine_house: EngineHouse) -> Docker:
    """The shared Docker: `.env` points the product at it, `.api` is for the test's own look."""
    return engine_house.docker


@pytest.fixture
def podman(engine_house: EngineHouse) -> Podman:
    """The shared Podman, likewise."""
    return engine_house.podman


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the two in turn."""
    return cast(Engine, request.getfixturevalue(request.param))


@pytest.fixture
def registry(engine_house: EngineHouse) -> Registry:
    """An image registry that both engines know, behind a password."""
    return engine_house.registry


@pytest.fixture
def make_private_docker(engine_house: EngineHouse) -> Iterator[Callable[..., PrivateDocker]]:
    """Starts dockerds of this test's own, with any options: `make_private_docker("--live-restore")`."""
    with private_dockers() as start:
        yield start


@pytest.fixture
def private_docker(make_private_docker: Callable[..., PrivateDocker]) -> PrivateDocker:
    """A dockerd of this test's own, with the small images: it may be killed, restarted and filled.

    Ask for it before `project`: then the project is stopped while its engine is still there.
    """
    return make_private_docker()


@pytest.fixture
def private_podman(engine_house: EngineHouse) -> Iterator[PrivatePodman]:
    """A Podman service of this test's own on the shared containers: it may be killed and restarted."""
    with own_podman(engine_house) as podman:
        yield podman


@pytest.fixture(params=["docker", "podman"])
def private_engine(request: pytest.FixtureRequest) -> Engine:
    """An engine of this test's own, each of the two in turn."""
    return cast(Engine, request.getfixturevalue(f"private_{request.param}"))
