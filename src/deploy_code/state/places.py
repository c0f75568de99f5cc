"""Where state may lie: the machine's folder, or the user's own where that cannot be written. Creates nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

DATA_DIR = "/var/lib/deploy-code"


def state_home(environ: Mapping[str, str]) -> str:
    """The user's own folder for state."""
    given = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(given):
        return given
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        import pwd

        home = pwd.getpwuid(os.geteuid()).pw_dir
    return os.path.join(home, ".local", "state")


def is_usable(path: str) -> bool:
    """Can this user write in ``path``, or make it? Looks at the nearest folder that is there."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)


def default_data_dir(environ: Mapping[str, str]) -> str:
    """Where the projects of this user lie unless their files say otherwise."""
    return DATA_DIR if is_usable(DATA_DIR) else os.path.join(state_home(environ), "deploy-code")
