"""Projects with containers, each under a name of its own: the engines are shared by all tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.engine_daemons import Docker, Engine, PrivateDocker
from support.harbour import Harbour, new_name
from support.project import ProjectFolder


@pytest.fixture
def harbour(engine: Engine, make_project: Callable[..., ProjectFolder]) -> Harbour:
    """A project on Docker, and then on Podman."""
    return Harbour(make_project(new_name(), **engine.env), engine)


@pytest.fixture
def dock(docker: Docker, make_project: Callable[..., ProjectFolder]) -> Harbour:
    """A project on Docker alone: for what no engine does in a way of its own."""
    return Harbour(make_project(new_name(), **docker.env), docker)


@pytest.fixture
def private(private_docker: PrivateDocker, make_project: Callable[..., ProjectFolder]) -> Harbour:
    """A project on a dockerd that may be killed."""
    return Harbour(make_project(new_name(), **private_docker.env), private_docker)


@pytest.fixture
def moving(private_engine: Engine, make_project: Callable[..., ProjectFolder]) -> Harbour:
    """A project on an engine that may be killed, Docker and then Podman."""
    return Harbour(make_project(new_name(), **private_engine.env), private_engine)
