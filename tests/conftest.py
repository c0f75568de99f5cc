"""Fixtures that all tests share. What they are made of lies in ``support``."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
