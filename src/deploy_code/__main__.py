"""The door of the command line: ``python -m deploy_code`` and the ``deploy-code`` script.

Kept apart from ``cli`` so that ``--version`` is answered before anything is imported, and so that the
collector of garbage is off while a short command loads its modules (commands that stay switch it on again).
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line with ``sys.argv`` and end the process with its exit code (CONTRACTS §4)."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from deploy_code._version import __version__

        sys.stdout.write(f"deploy-code {__version__}\n")
        return
    gc.disable()
    from deploy_code.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
