"""From a plain command into the engine's coroutines and back: one loop per command, signals, and a view on
the way.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from deploy_code.cli.live import View, choose_view
from deploy_code.cli.output import Interrupted, Unbreakable
from deploy_code.errors import DeployCodeError
from deploy_code.events import DeploymentStarted, Event

if TYPE_CHECKING:
    from typing import TextIO

    from deploy_code.app import App
    from deploy_code.cli.options import Options
    from deploy_code.orchestrator import Engine

T = TypeVar("T")

EARLY = "Interrupted before anything was changed."
FIRST = "Interrupted: undoing what was begun; a second Ctrl-C stops at once and leaves it to be recovered."
SECOND = "Stopping now. What was begun is recorded: the next command, or the agent, finishes or undoes it."


class Outcome(NamedTuple):
    """What the engine gave back, whether somebody interrupted it, and the warnings that were shown on the
    way.
    """

    result: object
    interrupted: bool
    warned: frozenset[str]


def run_engine(
    options: Options, app: App, act: Callable[[Engine], Awaitable[T]], *, live: bool = True
) -> tuple[T, Outcome]:
    """Run one operation of the engine to its end. Raises what the engine raises, ``Interrupted`` after
    Ctrl-C.

    Hang-ups and closed pipes are ignored: a deployment goes on when nobody watches. ``live``: there is
    something to watch.
    """
    import asyncio

    stay()
    _log_to_stderr(options)
    _go_on_unwatched()
    with redirect_stdout(sys.stderr):  # what plugins and strategies print must not get into our data
        outcome = asyncio.run(_watched(options, app, act, live))
    return cast(T, outcome.result), outcome


def stay() -> None:
    """This command lasts: let the collector work again, but not over what start-up made."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _go_on_unwatched() -> None:
    """To the end of the process: a hang-up ends nothing, and output that nobody reads is dropped."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout, sys.stderr = cast("TextIO", Unbreakable(sys.stdout)), cast("TextIO", Unbreakable(sys.stderr))


async def _watched(options: Options, app: App, act: Callable[[Engine], Awaitable[T]], live: bool) -> Outcome:
    engine = app.orchestrator()
    with choose_view(options, app.redactor().clean, live) as view:
        brake = _Brake(engine, view)
        leave = [engine.bus.subscribe(listener) for listener in (brake.listen, view.listen)]
        try:
            with brake:
                result = await act(engine)
        except BaseException as error:
            if not brake.pulled:
                raise
            if isinstance(error, DeployCodeError):
                view.say(str(error))
            raise Interrupted from error
        finally:
            for each in leave:
                each()
    return Outcome(result, brake.pulled > 0, frozenset(view.warned))


class _Brake:
    """Ctrl-C and SIGTERM while the engine works.

    Before a deployment is recorded nothing was changed, so the task just ends. Then: first an orderly way
    back, second stop now, third the task itself, should the engine not answer.
    """

    def __init__(self, engine: Engine, view: View) -> None:
        self.pulled = 0
        self._engine = engine
        self._view = view
        self._begun = False

    def listen(self, event: Event) -> None:
        self._begun = self._begun or isinstance(event, DeploymentStarted)

    def __enter__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._pull)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)

    def _pull(self) -> None:
        self.pulled += 1
        if not self._begun:
            self._end_task(EARLY)
        elif self.pulled > 2:
            self._end_task(SECOND)
        else:
            self._view.say(FIRST if self.pulled == 1 else SECOND)
            self._engine.interrupt()

    def _end_task(self, words: str) -> None:
        self._view.say(words)
        if self._task is not None:
            self._task.cancel()


def _log_to_stderr(options: Options) -> None:
    """Libraries that log: warnings and worse, more with ``--log-level debug``; no traceback below that."""
    import logging

    class Line(logging.Formatter):
        def formatException(self, ei: object) -> str:
            return super().formatException(ei) if options.shows("debug") else ""  # type: ignore[arg-type]

    handler = logging.StreamHandler()
    handler.setFormatter(Line("%(levelname)s %(name)s: %(message)s"))
    level = {"trace": "DEBUG", "debug": "DEBUG", "error": "ERROR"}.get(options.log_level, "WARNING")
    logging.basicConfig(level=level, handlers=[handler])
