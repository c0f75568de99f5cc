"""Events as async iterators: each reader has a bounded queue of its own, and is told when it was too slow.

Events are published in the loop that runs the operation; readers may live in other loops and threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from weakref import WeakSet

from deploy_code.events import Event, EventsLost, InstanceChanged

LIMIT = 10_000  # events that wait for one reader: some 200 services from start to ready


class EventStream(AsyncIterator[Event]):
    """One reader. It hears what happens from its making on, and ends when the orchestrator is closed.

    To be iterated by one task at a time; RuntimeError for a second one, which would hear only half. One that nobody
    holds any more is forgotten.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._closed = False
        self._lock = threading.Lock()
        self._sleeper: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def __anext__(self) -> Event:
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        while True:
            with self._lock:
                event = self._take()
                if event is not None:
                    return event
                if self._closed:
                    raise StopAsyncIteration
                self._lie_down(loop, news)
            try:
                await news.wait()
            finally:
                self._get_up(news)
            news.clear()

    async def aclose(self) -> None:
        """Hear no more; who iterates gets what is queued, then the end."""
        self.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._wake()

    def put(self, event: Event) -> None:
        """Queue it, or count it as lost; the loss is told in its place among the others."""
        with self._lock:
            if self._closed:
                return
            if len(self._waiting) >= self._limit:
                self._lost += 1
                return
            if self._lost:
                self._waiting.append(self._confession())
            self._waiting.append(event)
            self._wake()

    def _take(self) -> Event | None:
        if self._waiting:
            return self._waiting.popleft()
        return self._confession() if self._lost else None

    def _confession(self) -> Event:
        lost, self._lost = self._lost, 0
        return EventsLost(count=lost)

    def _lie_down(self, loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
        if self._sleeper is not None and not self._sleeper[0].is_closed():
            raise RuntimeError("another task reads these events already: call events() once for each reader")
        self._sleeper = loop, news

    def _get_up(self, news: asyncio.Event) -> None:
        with self._lock:
            if self._sleeper is not None and self._sleeper[1] is news:
                self._sleeper = None

    def _wake(self) -> None:
        if self._sleeper is None:
            return
        (loop, news), self._sleeper = self._sleeper, None
        with suppress(RuntimeError):  # its loop is closed: nobody reads any more
            loop.call_soon_threadsafe(news.set)


class Hub:
    """All readers of one orchestrator."""

    def __init__(self) -> None:
        self._streams: WeakSet[EventStream] = WeakSet()

    def open(self, limit: int) -> EventStream:
        stream = EventStream(limit)
        self._streams.add(stream)
        return stream

    def publish(self, event: Event) -> None:
        """A bus listener. What was there before an operation began is no news."""
        if isinstance(event, InstanceChanged) and not event.deployment:
            return
        for stream in tuple(self._streams):
            stream.put(event)

    def close(self) -> None:
        """End every reader; later ones may come."""
        for stream in tuple(self._streams):
            stream.close()
        self._streams = WeakSet()
