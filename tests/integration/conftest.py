"""Fixtures of tests that drive the engine in their own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy_code.platforms.spawn import stop_agent
from support.project import ProjectFolder


@pytest.fixture
def no_recovery_by_the_agent(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The agent leaves what was interrupted to the test, and is ended after it: by itself it would wait."""
    monkeypatch.setenv("DEPLOY_CODE_RECOVERY_DELAY", "600")
    yield
    if project.leftovers():
        project.cli("stop", "--timeout", "5")
    if project.state.exists():
        stop_agent(str(project.state))
