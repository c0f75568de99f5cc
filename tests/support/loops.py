"""Coroutine tests on asyncio's own loop and on uvloop: the same helpers that authors of drivers get."""

from deploy_code.testing.contracts.loops import on_both_loops, until

__all__ = ["on_both_loops", "until"]
