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
from deploy_code.drivers.group import Group
from deploy_code.model import Content, Resources

MADE = "made"  # in Running.handler
_DIGEST_BYTES = 5
_PARTS = {
    "command": ("command", "args"),
    "env": ("env", "inherit_env"),
    "user": ("user",),
    "working_dir": ("working_dir",),
    "release": ("release",),
}
_USUAL = frozenset("PATH LANG LC_ALL LC_CTYPE TZ TMPDIR HOME USER LOGNAME PWD OLDPWD SHLVL _".split())
_GIVEN = ("PORT", "DEPLOY_CODE_")  # by us at each start, and as they were then


def made_of(content: Content, uuid: str) -> str:
    """``command=… env=…``: a digest for each part of what a process is started from, placeholders unresolved."""
    return " ".join(f"{part}={_digest(content, names, uuid)}" for part, names in _PARTS.items())


def _digest(content: Content, names: tuple[str, ...], uuid: str) -> str:
    text = json.dumps([to_data(getattr(content, name)) for name in names], sort_keys=True)
    return blake2b(text.encode(), key=uuid.encode()[:64], digest_size=_DIGEST_BYTES).hexdigest()


def differences(handler: Mapping[str, str], made: str, *, pid: int, env: Mapping[str, str] | None = None) -> list[str]:
    """In words, what of process ``pid`` is not as its revision says. ``handler``: what was remembered of its start.

    ``made``: ``made_of`` its revision. ``env``: the one it would be started with now; it only gives the names.
    """
    was, now = _parts(handler.get(MADE, "")), _parts(made)
    changed = [part for part in _PARTS if part in was and part in now and was[part] != now[part]]
    return [_words(part, pid, env) for part in changed]


def _parts(text: str) -> dict[str, str]:
    return {part: digest for part, _, digest in (each.partition("=") for each in text.split())}


def _words(part: str, pid: int, env: Mapping[str, str] | None) -> str:
    if part == "release":
        return "it runs other code than its revision says"
    names = _names(pid, env) if part == "env" and env is not None else []
    return f"{part} changed ({', '.join(names)})" if names else f"{part} changed"


def _names(pid: int, env: Mapping[str, str]) -> list[str]:
    """Variables that the process got and now would not get like this; none where it has written over them."""
    got = _environ(pid)
    names = {name for name in {*got, *env} if got.get(name) != env.get(name)} if got else set()
    return sorted(name for name in names - _USUAL if not name.startswith(_GIVEN))


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


def limits_changed(group: Group | None, resources: Resources, pid: int, uuid: str) -> Iterator[str]:
    """What its control group says where the revision says something else; nothing where it has none."""
    if group is None:
        return
    if not group.holds(pid, uuid):
        yield "limits: it was moved out of its control group"
        return
    for name, is_, due in group.limits(resources):
        if is_ != due:
            yield f"limits: its {name} is {is_ or 'none'} and not {due or 'none'}"
