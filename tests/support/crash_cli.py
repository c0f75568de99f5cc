"""The real command line, with a death in it: ``crash_cli.py VICTIM MOMENT STEP ARGUMENT…``.

VICTIM is ``cli``, ``agent`` or ``both``; it gets SIGKILL right ``before`` or ``after`` (MOMENT) the STEP-th step of
the plan is carried out, counting from 1, steps of a rollback included. With fewer steps than that the command ends
as always. The agent is found by the folder that the command runs in.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from deploy_code.__main__ import main
from deploy_code.orchestrator import operations
from support.leftovers import AGENT, leftovers

victim, moment, number, *arguments = sys.argv[1:]
perform = operations.perform
steps = 0


async def perform_and_die(context: Any, step: Any) -> Any:
    global steps
    steps += 1
    mine = steps == int(number)
    if mine and moment == "before":
        strike()
    result = await perform(context, step)
    if mine and moment == "after":
        strike()
    return result


def strike() -> None:
    if victim in ("agent", "both"):
        for each in leftovers(Path.cwd()):
            if AGENT in each.command:
                os.kill(each.pid, signal.SIGKILL)
    if victim in ("cli", "both"):
        os.kill(os.getpid(), signal.SIGKILL)


operations.perform = perform_and_die
sys.argv = ["deploy-code", *arguments]
sys.exit(main())
