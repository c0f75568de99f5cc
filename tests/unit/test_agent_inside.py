"""Health commands in containers while their engine is away."""

from __future__ import annotations

import pytest

from deploy_code.agent.inside import ProbeInside
from deploy_code.health.dial import ProbeNotMadeError
from deploy_code.health.probes import starts_a_process
from deploy_code.model import ProbeResult


class Asked:
    """As ``drivers.engine.exec.ExecProbe``."""

    kind = "command"

    def __init__(self, *, ok: bool = False, was_lost: bool = False) -> None:
        self.was_lost = was_lost
        self._ok = ok

    async def __call__(self) -> ProbeResult:
        return ProbeResult(
            ok=self._ok, kind=self.kind, target="true", at=0.0, duration=0.0, detail="the engine is away"
        )


async def test_a_proven_container_is_not_unwell_because_nobody_can_ask_it():
    with pytest.raises(ProbeNotMadeError, match="the engine is away"):
        await ProbeInside(Asked(was_lost=True), lambda: True)()  # type: ignore[arg-type]


async def test_who_waits_for_the_first_answer_learns_why_there_is_none():
    result = await ProbeInside(Asked(was_lost=True), lambda: False)()  # type: ignore[arg-type]
    assert not result.ok and result.detail == "the engine is away"


@pytest.mark.parametrize("ok", [True, False])
async def test_an_answer_is_an_answer(ok: bool):
    assert (await ProbeInside(Asked(ok=ok), lambda: True)()).ok is ok  # type: ignore[arg-type]


def test_it_is_as_costly_as_a_command_of_this_machine():
    assert starts_a_process(ProbeInside(Asked(), lambda: True))  # type: ignore[arg-type]
