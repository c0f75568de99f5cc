"""``healthcheck`` to a health check of ours, with Docker's own defaults where ours differ."""

from __future__ import annotations

from typing import Any

from deploy_code.config.compose.reader import Item, Reader, Text
from deploy_code.config.compose.template import joined
from deploy_code.config.compose.words import words_of

SHELL = ("/bin/sh", "-c")
"""What Docker runs ``CMD-SHELL`` with."""
TIMEOUT_SECONDS = 30
"""Docker's bound of one probe; ours is shorter."""
_DURATIONS = {
    "interval": "interval_seconds",
    "timeout": "timeout_seconds",
    "start_period": "start_period_seconds",
}


def health_of(reader: Reader, item: Item | None) -> dict[str, Any] | None:
    """None where the file says nothing: then the image's own check counts, there as here."""
    keys = reader.entries(item)
    if not keys:
        return None
    test = words_of(reader, keys.get("test")) if _is_list(keys.get("test")) else _shell(reader, keys.get("test"))
    if reader.flag(keys.get("disable")) or (test and reader.value(test[0]) == "NONE"):
        return {"disabled": True}
    found: dict[str, Any] = {}
    if test:
        found["command"] = _command(reader, test, keys["test"])
    for key, ours in _DURATIONS.items():
        seconds = reader.seconds(keys.get(key))
        if seconds or (seconds is not None and ours == "start_period_seconds"):
            found[ours] = seconds
    retries = reader.text(keys.get("retries"))
    if retries is not None and reader.value(retries) != "0":
        found["retries"] = reader.number(retries, low=1)
    if test:
        found.setdefault("timeout_seconds", TIMEOUT_SECONDS)
    if "start_interval" in keys:
        reader.dropped("until it is healthy it is asked often anyway", keys["start_interval"])
    return found


def _is_list(item: Item | None) -> bool:
    return item is not None and not item.is_scalar


def _shell(reader: Reader, item: Item | None) -> list[Text] | None:
    """A test that is text goes to a shell."""
    text = reader.text(item)
    return None if text is None else [text.of(joined("CMD-SHELL")), text]


def _command(reader: Reader, test: list[Text], item: Item) -> list[Any]:
    kind, *words = test
    how = reader.value(kind)
    if how == "CMD" and words:
        return [reader.written(word) for word in words]
    if how == "CMD-SHELL" and len(words) == 1:
        return [*SHELL, reader.written(words[0])]
    reader.problem("a test begins with CMD, CMD-SHELL or NONE", item, 'write ["CMD", "program", "argument"]')
    return []
