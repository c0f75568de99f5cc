"""Opening the state for commands that only look: read-only, without models, quiet when there is none yet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy_code.cli.output import say_warnings

if TYPE_CHECKING:
    from deploy_code.app import App
    from deploy_code.cli.options import Options
    from deploy_code.security.redact import Redactor
    from deploy_code.state.store import Store


@contextmanager
def open_store(options: Options, app: App | None = None) -> Iterator[Store | None]:
    """The state of the project, or None when nothing was ever deployed. Says the warnings of its identity."""
    app = app or options.app()
    say_warnings(app.identity.warnings, options)
    store = app.reader()
    if store is None:
        yield None
        return
    with store:
        yield store


def redactor_of(store: Store | None) -> Redactor:
    """Knows every secret that any revision ever had."""
    from deploy_code.security.redact import Redactor

    return Redactor(store.secrets() if store else ())


def ticks(folder: str, *, least: float = 1.0, most: float = 5.0) -> Iterator[None]:
    """Yield at once, then whenever the state in ``folder`` was written to: at most every ``least`` seconds,
    at the latest after ``most``, because the death of a process that no agent watches is written nowhere.
    """
    from deploy_code.state.watch import StateWatch

    with StateWatch(folder) as watch:
        while True:
            yield
            time.sleep(least)
            watch.wait(most)
