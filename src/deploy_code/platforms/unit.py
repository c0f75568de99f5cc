"""The systemd unit that keeps an agent over reboots: ``deploy-code agent install``.

Services are children of the agent, so whatever restricts the agent restricts them; only what no ordinary service needs
is taken away. They outlive the agent (``KillMode=process``), and the agent does not end for want of work there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from deploy_code.drivers.cgroup import SUBGROUP

_UNSAFE = re.compile(r"[^A-Za-z0-9:_.-]")


def unit_name(project: str) -> str:
    """``deploy-code-shop.service``"""
    return f"deploy-code-{_UNSAFE.sub('-', project)}.service"


def unit_text(
    *,
    project: str,
    state_dir: str,
    python: str,
    package_folder: str = "",
    user: str = "",
    for_user_manager: bool = False,
) -> str:
    """The text of the unit. ``python``: the interpreter to run, absolute; ``package_folder``: what to put on PYTHONPATH
    where the package is not installed; ``user``: whom the agent runs as, empty for root. ``for_user_manager``: for
    ``systemctl --user``, where there is neither ``User=`` nor the right to restrict.
    """
    sections = [
        ("Unit", _unit(project)),
        ("Service", _service(state_dir, python, package_folder, user, for_user_manager)),
        ("Install", [f"WantedBy={'default' if for_user_manager else 'multi-user'}.target"]),
    ]
    return "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections)


def _unit(project: str) -> list[str]:
    return [
        f"Description=deploy-code agent of {_percent(project)}",
        "After=network-online.target",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
    ]


def _service(state_dir: str, python: str, package_folder: str, user: str, for_user_manager: bool) -> list[str]:
    command = [python, "-P", "-m", "deploy_code.agent", state_dir]
    return [
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={_words(command)}",
        *([f"Environment={_word('PYTHONPATH=' + package_folder)}"] if package_folder else []),
        *([f"User={user}"] if user and not for_user_manager else []),
        "Restart=always",
        "RestartSec=1",
        "# Services are to survive the agent, and to be its own to stop.",
        "KillMode=process",
        "OOMPolicy=continue",
        "# Services with limits get control groups of their own.",
        "Delegate=yes",
        *([f"DelegateSubgroup={SUBGROUP}"] if for_user_manager or _is_ordinary(user) else []),
        "TasksMax=infinity",
        "LimitNOFILE=1024:524288",
        *(_hardening() if not for_user_manager and not user else []),
    ]


def _is_ordinary(user: str) -> bool:
    """Root makes control groups at the top. Others only in that of their unit, and there only if the agent itself is
    not in it but in a part of it; systemd knows that from version 254 on, and older ones say that they do not.
    """
    return user not in ("", "root", "0")


def _hardening() -> list[str]:
    """What services of any kind can do without. For users other than root these would imply NoNewPrivileges, and take
    sudo and file capabilities away from services.
    """
    return [
        "# What holds for the agent holds for its services: only what none of them needs is taken away.",
        "ProtectClock=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
    ]


def _words(words: Sequence[str]) -> str:
    return " ".join(map(_word, words))


def _word(text: str) -> str:
    """Quoted for a unit file where it has to be."""
    text = _percent(text).replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9/@%+=:,._$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def unit_path(project: str, *, for_user_manager: bool = False) -> str:
    """Where the unit belongs: /etc/systemd/system, or the user's own folder."""
    folder = os.path.expanduser("~/.config/systemd/user") if for_user_manager else "/etc/systemd/system"
    return os.path.join(folder, unit_name(project))
