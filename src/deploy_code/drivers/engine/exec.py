"""Health commands inside a container."""

from __future__ import annotations

from deploy_code.model import ProbeResult


class ExecProbe:
    kind = "command"

    async def __call__(self) -> ProbeResult:
        raise NotImplementedError
