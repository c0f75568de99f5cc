"""Name and folders of a project: found at once, in broken files too, and never two worlds for one project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_kit import load, write
from deploy_code.config import find_identity
from deploy_code.config.identity import _parsed, _scan, project_name
from deploy_code.errors import ConfigError, StateError
from deploy_code.model import Identity


def identity(folder: Path, text: str, **environ: str) -> Identity:
    return find_identity([write(folder, text)], environ={"HOME": str(folder / "home"), **environ})


def test_name_and_folders_come_from_the_file(tmp_path: Path) -> None:
    text = """\
        name: shop   # the name
        environment: staging
        infrastructure:
          network: {mode: Host}
          storage:
            # where
            data_dir: "./data"
            log_dir: logs # here
            temp_dir: '/tmp/x y'
            backup_dir: ${BACKUP:-backups}
        services: {a: {command: x}}
        """
    found = identity(tmp_path, text)
    assert (found.name, found.environment, found.warnings) == ("shop", "staging", ())
    assert found.files == (str(tmp_path / "deploy-code.yaml"),)
    assert found.directories.state == f"{tmp_path}/data/shop"
    assert found.directories.logs == f"{tmp_path}/logs/shop"
    assert found.directories.temp == "/tmp/x y/shop"
    assert found.directories.backup == f"{tmp_path}/backups/shop"
    assert sorted(os.listdir(tmp_path)) == ["deploy-code.yaml"]  # nothing was created


@pytest.mark.parametrize(
    "text",
    [
        "{name: shop, infrastructure: {storage: {data_dir: d}}}",
        "name: shop\ninfrastructure: {storage: {data_dir: d}}\n",
        "name: !!str shop\ninfrastructure:\n  storage: {data_dir: d}\n",
        "name: 'shop'\ninfrastructure:\n    storage:\n        data_dir: 'd'\n    network:\n        mode: Host\n",
        'name: "shop"\r\ninfrastructure:\r\n  storage:\r\n    data_dir: d\r\n',
        "x: &s {data_dir: d}\nname: shop\ninfrastructure:\n  storage: *s\n",
        "x: &s {storage: {data_dir: d}}\nname: shop\ninfrastructure:\n  <<: *s\n",
        "services:\n  a:\n    name: wrong\n    infrastructure:\n      storage: {}\nname: shop\n"
        "infrastructure:\n  storage:\n\n    data_dir: d\n",
        "name:\n  shop\ninfrastructure:\n  storage:\n    data_dir:\n      d\n",
        "---\nname: shop\ninfrastructure:\n  network:\n    dns_servers:\n      - 1.1\n  storage:\n    data_dir: d\n",
        '"name": shop\n"infrastructure":\n  "storage":\n    "data_dir": d\n',
        'name: shop\n"infrastructure":\n  storage:\n    data_dir: d\n',
    ],
)
def test_every_way_of_writing_it_gives_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.yaml").write_bytes(text.encode())
    found = find_identity([tmp_path / "f.yaml"], environ={})
    assert (found.name, found.directories.state) == ("shop", f"{tmp_path}/d/shop")


@pytest.mark.parametrize(
    "text",
    [
        "name: shop\nservices: [\n",
        "name: shop\nservices:\n\tx: y\n",
        "name: shop\nnonsense: 1\nservices: {a: {}}\n",
        "name: shop\nenvironment: ${NOT_SET}\nservices: {a: {command: '${GONE}'}}",
    ],
)
def test_a_broken_file_still_has_its_name(tmp_path: Path, text: str) -> None:
    assert identity(tmp_path, text).name == "shop"


@pytest.mark.parametrize(
    "text", ["", "[", "name: [", "name: ${GONE}", "name: '../..'", "name: {a: b}", "\x00\x01", "name: /"]
)
def test_without_a_usable_name_it_is_that_of_the_folder_or_made_safe(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "My Shop!"
    folder.mkdir()
    name = identity(folder, text).name
    assert name in ("My-Shop", "project") and "/" not in name


def test_the_name_in_the_project_is_that_of_the_identity(tmp_path: Path) -> None:
    from deploy_code.config.resolve import resolve

    for text in ("services: {}", "name: a.b-c\nservices: {}", "name: ${N:-x}\nservices: {}"):
        config = load(tmp_path, text)
        assert resolve(config).name == identity(tmp_path, text).name


def test_dotenv_and_overlays_count(tmp_path: Path) -> None:
    write(tmp_path, "STAGE=two\n", ".env")
    base = write(tmp_path, "name: shop-${STAGE}\ninfrastructure:\n  storage:\n    data_dir: one\n", "base.yaml")
    over = write(tmp_path, "infrastructure:\n  storage:\n    data_dir: ${STAGE}\n", "over.yaml")
    found = find_identity([base, over], environ={})
    assert (found.name, found.directories.state) == ("shop-two", f"{tmp_path}/two/shop-two")


def test_without_a_file_it_is_e001_and_with_a_project_no_file_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E001"):
        find_identity([tmp_path / "gone.yaml"], environ={})
    found = find_identity([tmp_path / "gone.yaml"], project="shop", environ={})
    assert (found.name, found.files) == ("shop", ())
    with pytest.raises(ConfigError, match="is no name of a project"):
        find_identity([], project="../x", environ={})


def test_a_named_project_that_is_the_one_in_the_file_uses_its_folders(tmp_path: Path) -> None:
    path = write(tmp_path, "name: shop\ninfrastructure: {storage: {data_dir: d}}\n")
    assert find_identity([path], project="shop", environ={}).directories.state == f"{tmp_path}/d/shop"
    assert find_identity([path], project="other", environ={}).directories.state != f"{tmp_path}/d/other"


@given(
    st.dictionaries(
        st.sampled_from(["data_dir", "log_dir", "temp_dir"]), st.from_regex(r"[a-z/.$\"' #:{-]{0,8}", fullmatch=True)
    ),
    st.sampled_from(["shop", "'shop'", '"sh\\x6fp"', "shop # x", "[shop]", "", "~", "a: b", "sh'op", "*x"]),
    st.integers(1, 5),
)
@settings(max_examples=300, deadline=None)
def test_the_scan_and_the_parser_agree(storage: dict[str, str], name: str, indent: int) -> None:
    pad = " " * indent
    lines = [f"name: {name}", "infrastructure:", f"{pad}storage:"]
    lines += [f"{pad}{pad}{key}: {value}" for key, value in storage.items()]
    text = "\n".join([*lines, "services:", "  a: {command: x}", ""])
    parsed = _parsed(text)
    if parsed:
        scanned = {key: value for key, value in _scan(text).items() if value}
        assert scanned == {key: value for key, value in parsed.items() if value}


@given(st.text())
def test_any_folder_gives_a_name_that_is_safe(folder: str) -> None:
    name = project_name(None, folder)
    assert name and "/" not in name and not name.startswith((".", "-")) and len(name) <= 63


# --------------------------------------------------------------------------- what may be written

AS_NOBODY = """
import json, os, pwd, sys
import deploy_code.config.dotenv, deploy_code.config.identity
os.setgroups([]); os.setgid(65534); os.setuid(65534)
from deploy_code.config import find_identity
from deploy_code.errors import DeployCodeError
try:
    found = find_identity([sys.argv[1]], environ={"HOME": sys.argv[2]})
except DeployCodeError as error:
    print(json.dumps({"error": str(error)}))
else:
    places = found.directories
    print(json.dumps({"state": places.state, "logs": places.logs, "warnings": found.warnings}))
"""


def as_nobody(path: Path, home: Path) -> dict[str, object]:
    import json

    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(path), str(home)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A folder that another user can reach: pytest's own are 0700 on the way down."""
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp") and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    return tmp_path


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@needs_root
def test_folders_that_are_not_writable_fall_back_to_the_users_own_with_a_warning_if_written(open_path: Path) -> None:
    text = f"name: nobodys-shop\ninfrastructure:\n  storage:\n    data_dir: {open_path}/root-only\n"
    path = write(open_path, text)
    (open_path / "root-only").mkdir(mode=0o755)
    found = as_nobody(path, open_path)
    own = f"{open_path}/.local/state/deploy-code/nobodys-shop"
    assert (found["state"], found["logs"]) == (own, f"{own}/logs")
    assert found["warnings"] == [f"warning: data_dir {open_path}/root-only is not writable for this user, using {own}"]
    (path).write_text("name: nobodys-shop\n")
    assert as_nobody(path, open_path)["warnings"] == []


@needs_root
def test_a_state_that_exists_and_is_not_ours_is_an_error_so_that_there_are_no_two_worlds(open_path: Path) -> None:
    path = write(open_path, f"name: shop\ninfrastructure:\n  storage:\n    data_dir: {open_path}/data\n")
    (open_path / "data" / "shop").mkdir(parents=True)
    (open_path / "data" / "shop").chmod(0o700)
    assert "S005" in str(as_nobody(path, open_path)["error"]) and "belongs to root" in str(
        as_nobody(path, open_path)["error"]
    )


def test_a_file_in_the_place_of_the_state_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "shop").touch()
    with pytest.raises(StateError, match="cannot be opened"):
        identity(tmp_path, "name: shop\ninfrastructure: {storage: {data_dir: d}}")


def test_finding_it_imports_nothing_heavy(tmp_path: Path) -> None:
    path = write(tmp_path, "name: shop\ninfrastructure:\n  storage:\n    data_dir: d\n")
    program = (
        "import sys; from deploy_code.config.identity import find_identity; find_identity([sys.argv[1]]);"
        "heavy = {'pydantic', 'yaml', 'asyncio', 'json', 'hashlib'} & set(sys.modules); assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0
