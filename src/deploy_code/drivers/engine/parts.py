"""Bodies that come in parts, read as what they are: one JSON value, a JSON object a line, or frames of two streams."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from deploy_code.drivers.engine.errors import EngineError
from deploy_code.drivers.engine.http import Connection

LINE_LIMIT = 16 * 1024 * 1024  # bytes of one line or frame; an engine sends a few KB
_FRAME_HEAD = 8  # stream, three zeros, four bytes of length
_FAILURE = 3  # the "stream" on which the engine tells what went wrong


async def read_all(connection: Connection, limit: int, *, cut: bool = False) -> bytes:
    """The whole body. Longer than ``limit`` bytes is an EngineError, or cut off there."""
    body = bytearray()
    while part := await connection.read():
        body += part
        if len(body) > limit:
            if cut:
                return bytes(body[:limit])
            raise EngineError(f"the engine's answer is longer than {limit >> 20} MB", status=connection.status)
    return bytes(body)


async def as_json_lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """One object a line, empty lines left out; the last may do without its end. Raises EngineError for another text."""
    unread = bytearray()
    searched = 0
    async for part in parts:
        unread += part
        while (end := unread.find(b"\n", searched)) >= 0:
            line = bytes(unread[:end])
            del unread[: end + 1]
            searched = 0
            if line.strip():
                yield _object(line)
        searched = len(unread)
        _check_length(searched)
    if unread.strip():
        yield _object(bytes(unread))


async def as_frames(parts: AsyncIterator[bytes]) -> AsyncGenerator[tuple[int, bytes], None]:
    """(stream, payload), whole frames. Raises EngineError for what the engine tells of a failure of its own."""
    unread = bytearray()
    async for part in parts:
        unread += part
        while len(unread) >= _FRAME_HEAD:
            length = int.from_bytes(unread[4:_FRAME_HEAD])
            _check_length(length)
            end = _FRAME_HEAD + length
            if len(unread) < end:
                break
            stream, payload = unread[0], bytes(unread[_FRAME_HEAD:end])
            del unread[:end]
            if stream == _FAILURE:
                raise EngineError(payload.decode(errors="replace").strip(), status=500)
            yield stream, payload


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise EngineError(f"the engine sent a line that is no JSON: {error}", status=200) from error
    if not isinstance(found, dict):
        raise EngineError("the engine sent a line that is no JSON object", status=200)
    return found


def _check_length(length: int) -> None:
    if length > LINE_LIMIT:
        raise EngineError(f"the engine sent more than {LINE_LIMIT >> 20} MB in one piece", status=200)
