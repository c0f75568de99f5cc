"""``deploy-code agent install``: hands the agent over to systemd, so that it comes back after a reboot."""

from __future__ import annotations

import os
import sys

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import write
from deploy_code.errors import AgentError
from deploy_code.model import Identity

SYSTEMD = "/run/systemd/system"  # there while systemd is what runs this machine: sd_booted(3)


@command("install")
@click.option("--print", "only_print", is_flag=True, help="Print the unit; write nothing.")
@click.option("--user", "for_user", is_flag=True, help="For systemctl --user [default: unless you are root].")
@click.pass_obj
def install(options: Options, only_print: bool, for_user: bool) -> None:
    """Have systemd start the agent at boot, and now.

    Writes the unit, enables it, and lets systemd take over from an agent that runs already; services are not touched.
    """
    from deploy_code.platforms.spawn import can_start
    from deploy_code.platforms.unit import unit_name, unit_path

    identity = options.app().identity
    for_user = for_user or os.geteuid() != 0
    text = _text(identity, for_user)
    if only_print or options.dry_run:
        write(text.rstrip("\n"))
        return
    if not can_start(identity.directories.state):
        raise click.UsageError(
            f"nothing was deployed yet, so no agent has anything to do; first {options.line('deploy')}"
        )
    path = unit_path(identity.name, for_user_manager=for_user)
    _write(path, text)
    write(f"Wrote {path}.")
    _take_over(identity, unit_name(identity.name), for_user)


def _text(identity: Identity, for_user: bool) -> str:
    from deploy_code.platforms.spawn import package_folder
    from deploy_code.platforms.unit import unit_text

    return unit_text(
        project=identity.name,
        state_dir=identity.directories.state,
        python=sys.executable,
        package_folder=package_folder(),
        user="" if for_user else _owner(identity.directories.state),
        for_user_manager=for_user,
    )


def _owner(folder: str) -> str:
    """Whom the agent runs as: the owner of the state; empty for root, and where there is no state yet."""
    import pwd

    try:
        uid = os.stat(folder).st_uid
        return pwd.getpwuid(uid).pw_name if uid else ""
    except (FileNotFoundError, KeyError):
        return ""


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise AgentError(
            f"{path} cannot be written: {exc.strerror}",
            code="S005",
            remedy="Run as root, or with --user, or put the text of --print where it belongs",
        ) from exc


def _take_over(identity: Identity, unit: str, for_user: bool) -> None:
    systemctl = ["systemctl", *(["--user"] if for_user else [])]
    enable = [*systemctl, "enable", "--now", unit]
    if not os.path.isdir(SYSTEMD):
        write(f"systemd does not run this machine now. Where it does: {' '.join(enable)}")
        return
    from deploy_code.platforms.spawn import stop_agent

    _run([*systemctl, "daemon-reload"])
    stop_agent(identity.directories.state)  # two agents of one project cannot be; services go on meanwhile
    _run(enable)
    write(f"systemd keeps the agent now: {' '.join(systemctl)} status {unit}")


def _run(argv: list[str]) -> None:
    import subprocess

    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise AgentError(f"{' '.join(argv)} could not be run: {exc}", code="E003") from exc
    if done.returncode:
        raise AgentError(
            f"{' '.join(argv)} failed: {done.stderr.strip()}", remedy="The unit is written; mend and enable it"
        )
