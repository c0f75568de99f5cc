"""Where it is written down what of this machine is promised to whom: one place for all projects of a user.

It does not follow the ``data_dir`` of a project, since cores, GPUs and ports do not either. Another user's folder is
never used: whoever may write there could promise away everything, and whoever may read it learns who runs what.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from deploy_code.state import places

FOLDER = ".machine"  # no name of a project begins with a dot, so it is taken by none
FILE = "ledger.db"
OVERRIDE = "DEPLOY_CODE_MACHINE_DIR"


def machine_dir(data_dir: str, environ: Mapping[str, str] | None = None) -> str:
    """The folder that the ledger lies below: the machine's, else the user's own, else ``data_dir``. Creates nothing.

    An agent has to find the same as whoever started it, so of the environment only ``DEPLOY_CODE_MACHINE_DIR`` counts.
    """
    given = (os.environ if environ is None else environ).get(OVERRIDE, "")
    if os.path.isabs(given):
        return given
    return next((home for home in (places.DATA_DIR, _own()) if _is_ours(home)), os.path.abspath(data_dir))


def path_of(home: str) -> str:
    """The ledger below ``home``."""
    return os.path.join(home, FOLDER, FILE)


def _own() -> str:
    import pwd

    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a user without an account, as containers have them
        return ""
    return os.path.join(places.state_home({"HOME": home}), "deploy-code") if os.path.isabs(home) else ""


def _is_ours(home: str) -> bool:
    if not home:
        return False
    folder = os.path.join(home, FOLDER)
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        return places.is_usable(home)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and places.is_usable(folder)
