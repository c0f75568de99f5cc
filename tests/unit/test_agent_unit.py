"""The systemd unit of ``agent install``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy_code.platforms.unit import unit_name, unit_path, unit_text


def text(**changes: object) -> str:
    values = {"project": "shop", "state_dir": "/var/lib/deploy-code/shop", "python": sys.executable}
    return unit_text(**(values | changes))  # type: ignore[arg-type]


def test_services_survive_the_unit_and_it_always_comes_back():
    lines = text().splitlines()
    assert {"Type=notify", "KillMode=process", "Restart=always"} <= set(lines)
    assert f"ExecStart={sys.executable} -P -m deploy_code.agent /var/lib/deploy-code/shop" in lines


def test_names_and_paths_with_special_characters_are_quoted():
    made = text(project="100% shop", state_dir='/srv/my "shop" 50%/$x')
    assert "Description=deploy-code agent of 100%% shop" in made
    assert r'"/srv/my \"shop\" 50%%/$$x"' in made


def test_a_user_is_named_and_not_restricted():
    made = text(user="deploy")
    assert "User=deploy" in made
    assert "ProtectClock" not in made


def test_the_users_own_manager_gets_no_user_line():
    made = text(user="deploy", for_user_manager=True)
    assert "User=" not in made
    assert "WantedBy=default.target" in made


def test_the_name_of_the_unit_is_safe():
    assert unit_name("my shop/7") == "deploy-code-my-shop-7.service"
    assert unit_path("shop") == "/etc/systemd/system/deploy-code-shop.service"
    assert unit_path("shop", for_user_manager=True).startswith(os.path.expanduser("~"))


@pytest.mark.parametrize("changes", [{}, {"user": "root"}, {"package_folder": "/opt/my code"}])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, changes: dict[str, object]):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / unit_name("shop")
    path.write_text(text(**changes))
    done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if path.name in line]) == (0, [])
