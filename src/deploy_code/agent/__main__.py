"""``python -m deploy_code.agent STATE_DIR``: becomes the agent of that project, unless there is one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .boot import Options, boot


def parse(arguments: Sequence[str]) -> Options:
    """``STATE_DIR [--detach] [--hold] [--ready-fd=N] [--lock-fd=N --listen-fd=N] [--replaced-for=VERSION]``"""
    values = dict(argument.partition("=")[::2] for argument in arguments if argument.startswith("--"))
    (state,) = (argument for argument in arguments if not argument.startswith("--"))
    return Options(
        state=state,
        detach="--detach" in values,
        hold="--hold" in values,
        ready=int(values.get("--ready-fd", -1)),
        lock=int(values.get("--lock-fd", -1)),
        listener=int(values.get("--listen-fd", -1)),
        replaced_for=values.get("--replaced-for", ""),
    )


def held_until_needed() -> bool:
    """Import everything while whoever started us reads its file; False when no agent is needed after all."""
    import os

    from . import agent as _warm  # noqa: F401

    return os.read(0, 1) != b""


def main(arguments: Sequence[str]) -> int:
    """Serve until nothing is wanted any more; the exit code."""
    options = parse(arguments)
    if options.hold and not held_until_needed():
        return 0
    booted = boot(options)
    if booted is None:
        return 0
    from .agent import serve

    return serve(booted)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
