"""Which of the loops a contract is kept on, where trying both would only cost time."""

from __future__ import annotations

import pytest

_ONE_LOOP = {"TestDockerDriver": "uvloop", "TestPodmanDriver": "asyncio"}  # they are one driver: each loop is tried


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    spared = [item for item in items if _is_spared(item)]
    if spared:
        config.hook.pytest_deselected(items=spared)
        items[:] = [item for item in items if item not in set(spared)]


def _is_spared(item: pytest.Item) -> bool:
    loop = _ONE_LOOP.get(item.parent.name if item.parent is not None else "", "")
    return bool(loop) and item.name.endswith("]") and f"[{loop}]" not in item.name
