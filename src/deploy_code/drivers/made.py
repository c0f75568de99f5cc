"""What a process was made from: noted when it starts, compared when somebody asks whether it is still as it should be.

What /proc says of a running process proves little. Programs exec others, write titles over their arguments and their
env, drop their user and change their folder, and all of that is as their authors meant it. What cannot change unseen is
what they were started from: a short digest of each part of it stays with the instance, keyed by its uuid, so that
equal secrets of two instances do not look alike. /proc only adds names where it can.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from deploy_code.codec import to_data
from deploy_code.drivers.base import Running, StartOrder
from deploy_code.drivers.group import Group
from deploy_code.model import Content

MADE = "made"  # in Running.handler
_DIGEST_BYTES = 5
_PARTS = ("command", "env", "user", "working_dir", "release")
_CODE = _PARTS[-1]
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=to_data).encode


def said(content: Content, uuid: str, service: str) -> StartOrder:
    """What a revision says of a process, to compare with; placeholders stay as they are."""
    return StartOrder(
        uuid=uuid,
        service=service,
        command=content.command,
        env=content.env,
        resources=content.resources,
        made=made_of(content, uuid),
    )


def made_of(content: Content, uuid: str) -> str:
    """``command=… env=…``: a digest for each part of what a process is started from, placeholders unresolved.

    What is hashed must stay as it is: processes outlive the version that started them.
    """
    key = uuid.encode()[:64]
    values = (
        (content.command, content.args),
        (dict(content.env), content.inherit_env),
        content.user,
        content.working_dir,
        content.release,
    )
    digests = (blake2b(_encode(each).encode(), key=key, digest_size=_DIGEST_BYTES).hexdigest() for each in values)
    return " ".join(f"{part}={digest}" for part, digest in zip(_PARTS, digests, strict=True))


def differences(running: Running, order: StartOrder) -> Iterator[str]:
    """In words, what of a living process is not as ``order``, which is what its revision ``said``."""
    was = running.handler.get(MADE, "")
    if was and was != order.made:
        before, now = _parts(was), _parts(order.made)
        for part in _PARTS:
            if part in before and before[part] != now[part]:
                yield _words(part, running.pid, order.env)
    yield from _limits(Group.remembered(running.handler), running, order)


def _parts(text: str) -> dict[str, str]:
    return {part: digest for part, _, digest in (each.partition("=") for each in text.split())}


def _words(part: str, pid: int, env: Mapping[str, str]) -> str:
    if part == _CODE:
        return "it runs other code than its revision says"
    names = _names(pid, env) if part == "env" else []
    return f"{part} changed ({', '.join(names)})" if names else f"{part} changed"


def _names(pid: int, env: Mapping[str, str]) -> list[str]:
    """Variables that the process did not get like this; none where it has written over them."""
    got = _environ(pid)
    fixed = {name: value for name, value in env.items() if "${" not in value}
    return sorted(name for name, value in fixed.items() if got.get(name) != value) if got else []


def _environ(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            entries = file.read().removesuffix(b"\0").split(b"\0")
    except OSError:
        return {}
    if not all(b"=" in each for each in entries):
        return {}
    pairs = (each.decode(errors="surrogateescape").partition("=") for each in entries)
    return {name: value for name, _, value in pairs}


def _limits(group: Group | None, running: Running, order: StartOrder) -> Iterator[str]:
    """What its control group says where the revision says something else; nothing where it has none."""
    if group is None:
        return
    if not group.holds(running.pid, running.uuid):
        yield "limits: it was moved out of its control group"
        return
    for name, now, due in group.limits(order.resources):
        if now != due:
            yield f"limits: its {name} is {now or 'none'} and not {due or 'none'}"
