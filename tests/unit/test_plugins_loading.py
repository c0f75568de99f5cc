"""How extensions are found: by import string, by file, by installed package; and what is said of those that are not."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from config_kit import MemoryCache, write
from deploy_code.config import load_project
from deploy_code.errors import ConfigError
from deploy_code.model import Project
from deploy_code.plugins import Plugin, absolute, load_extension, load_extensions

MINE = """
from __future__ import annotations
from dataclasses import dataclass
from deploy_code.orchestrator import DeploymentStrategy
from deploy_code.plugins import Plugin
from deploy_code.services.handler import Service

@dataclass
class Tells(Plugin):
    volume: int = 11

class Database(Service):
    pass

class Careful(DeploymentStrategy):
    pass

def gently(change):
    return []

ready = Tells(3)
number = 5
database = Database()

async def later(change):
    return []

class Stranger:
    pass

class Broken(Plugin):
    def __init__(self):
        raise SystemExit("no disk")

class NotReally:
    extension_kind = "plugin"
"""


def test_what_an_extension_is_follows_from_what_is_found(tmp_path: Path) -> None:
    write(tmp_path, MINE, "mine.py")
    names = ["Tells", "Database", "Careful", "gently", "ready"]
    found = [load_extension(f"./mine.py:{name}", str(tmp_path)) for name in names]
    assert [each.kind for each in found] == ["plugin", "service type", "strategy", "rollout", "plugin"]
    assert [each.name for each in found] == ["Tells", "Database", "Careful", "gently", "Tells"]
    again = load_extension(found[1].source, "")
    assert found[1].source == f"{tmp_path}/mine.py:Database" and again.value is found[1].value


def test_a_name_of_its_own_may_be_given(tmp_path: Path) -> None:
    write(tmp_path, MINE, "mine.py")
    found = load_extensions(["postgres = ./mine.py:Database", "slow=./mine.py:gently"], root=str(tmp_path))
    assert list(found.types) == ["postgres"] and list(found.rollouts) == ["slow"] and not found.strategies
    assert found.types["postgres"].where == "plugins[0]"


def test_a_file_stands_among_the_modules_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path, MINE, "mine.py")
    tells = load_extension(f"{path}:Tells", "").value(7)
    assert pickle.loads(pickle.dumps(tells)) == tells
    assert sys.modules[type(tells).__module__].__file__ == str(path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.py"]


def test_an_edited_file_is_another_module_and_the_old_one_stays_what_it_was(tmp_path: Path) -> None:
    write(tmp_path, "def one(change): return 1\n", "f.py")
    first = load_extension("./f.py:one", str(tmp_path)).value
    assert load_extension("f.py:one", str(tmp_path)).value is first
    write(tmp_path, "def one(change): return 2\n", "f.py")
    assert load_extension("./f.py:one", str(tmp_path)).value(None) == 2 and first(None) == 1


def test_a_recorded_entry_means_the_same_from_anywhere(tmp_path: Path) -> None:
    assert absolute("x = ./a/b.py:C", "/p") == "x = /p/a/b.py:C"
    assert absolute("pkg.mod:C.D", "/p") == "pkg.mod:C.D" and absolute("?", "/p") == "?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere.to.be:Found", "cannot be imported: No module named 'nowhere'"),
        ("./missing.py:X", "cannot be imported: No such file or directory: "),
        ("./mine.py:Missing", "cannot be imported: it has no 'Missing'"),
        ("deploy_code.plugins:Missing", "cannot be imported: it has no 'Missing'"),
        ("./syntax.py:X", "cannot be imported: "),
        ("./raises.py:X", "cannot be imported: ValueError: on import"),
        ("./quits.py:X", "cannot be imported: SystemExit: 3"),
        ("mine", "is not of the form package.module:Class or ./file.py:Class"),
        ("./mine.py:number", "is an object of type int: no plugin, service type, strategy or rollout"),
        ("./mine.py:Stranger", "is the class Stranger"),
        ("./mine.py:later", "is a coroutine function"),
        ("./mine.py:database", "is a ready object"),
        ("os:path", "is a module"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_place_where_it_is_registered(
    tmp_path: Path, text: str, said: str
) -> None:
    write(tmp_path, MINE, "mine.py")
    write(tmp_path, "def (:\n", "syntax.py")
    write(tmp_path, "raise ValueError('on import')\n", "raises.py")
    write(tmp_path, "import sys; sys.exit(3)\n", "quits.py")
    with pytest.raises(ConfigError) as caught:
        load_extensions(["./mine.py:Tells", text], root=str(tmp_path), file="deploy-code.yaml")
    told = str(caught.value)
    assert told.startswith("E002") and "(plugins[1] of deploy-code.yaml)" in told and said in told, told
    assert text.rpartition("/")[2] in told
    kept: list[ConfigError] = []
    found = load_extensions(["./mine.py:Tells", text], root=str(tmp_path), on_error=kept.append)
    assert len(found.plugins) == 1 and len(kept) == 1


@pytest.mark.parametrize(
    ("name", "said"), [("Broken", "SystemExit('no disk')"), ("NotReally", "is not a deploy_code.plugins.Plugin")]
)
def test_a_plugin_that_cannot_be_constructed_is_told_when_it_is_needed(tmp_path: Path, name: str, said: str) -> None:
    write(tmp_path, MINE, "mine.py")
    found = load_extensions([f"./mine.py:{name}", "./mine.py:Tells"], root=str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        _ = found.plugins
    assert said in str(caught.value) and "plugins[0]" in str(caught.value)
    kept: list[ConfigError] = []
    found = load_extensions([f"./mine.py:{name}", "./mine.py:Tells"], root=str(tmp_path), on_error=kept.append)
    assert [type(each).__name__ for each in found.plugins] == ["Tells"] and len(kept) == 1


@pytest.mark.parametrize(
    "entry", ["Parallel = ./mine.py:Careful", "Canary = ./mine.py:gently", "process = ./mine.py:Database"]
)
def test_what_is_built_in_cannot_be_replaced_by_its_name(tmp_path: Path, entry: str) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(ConfigError, match="has a name that is built in") as caught:
        load_extensions([entry], root=str(tmp_path), installed=False, file="shop.yaml")
    assert "mine.py" in str(caught.value) and "plugins[0] of shop.yaml" in str(caught.value)


@pytest.mark.parametrize(("name", "said"), [("Hangs", "cannot be constructed"), ("never", "cannot be imported")])
def test_what_never_ends_is_given_up_on_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr("deploy_code.plugins.LOAD_SECONDS", 0.2)
    hangs = "class Hangs(Plugin):\n    def __init__(self): time.sleep(1000)\n"
    head = "import time\nfrom deploy_code.plugins import Plugin\n"
    (tmp_path / "slow.py").write_text(head + (hangs if name == "Hangs" else "time.sleep(1000)\n"))
    with pytest.raises(ConfigError) as caught:
        _ = load_extensions([f"./slow.py:{name}"], root=str(tmp_path), installed=False, file="shop.yaml").plugins
    assert said in str(caught.value) and "no answer after 0.2 s" in str(caught.value)
    assert f'slow.py:{name}" (plugins[0] of shop.yaml)' in str(caught.value)


def test_two_things_of_one_name_are_an_error_and_one_thing_twice_is_one(tmp_path: Path) -> None:
    write(tmp_path, MINE, "mine.py")
    write(tmp_path, MINE, "other.py")
    found = load_extensions(["./mine.py:Tells", "./mine.py:Tells", "./other.py:Tells"], root=str(tmp_path))
    assert len(found.plugins) == 2
    with pytest.raises(ConfigError, match='two things are called service type "Database"') as caught:
        load_extensions(["./mine.py:Database", "./other.py:Database"], root=str(tmp_path))
    assert "plugins[0]" in str(caught.value) and "plugins[1]" in str(caught.value)


# --------------------------------------------------------------------------- installed packages


def install(folder: Path, points: str, name: str = "shop_tools") -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    write(info, f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "METADATA")
    write(info, f"[deploy_code.plugins]\n{points}\n", "entry_points.txt")
    write(folder, MINE, f"{name}.py")


def test_installed_packages_offer_extensions_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "tells = shop_tools:Tells\npostgres = shop_tools:Database")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load_extensions([], root="")
    assert isinstance(found.plugins[0], Plugin) and list(found.types) == ["postgres"]
    assert found.types["postgres"].where == "entry point postgres of distribution shop_tools"
    assert not load_extensions([], root="", installed=False).all


def test_a_broken_entry_point_is_told_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "x = shop_gone:X", "shop_broken")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"entry point x of distribution shop_broken.*No module named 'shop_gone'"):
        load_extensions([], root="")


# --------------------------------------------------------------------------- types of services

TEXT = """
plugins: ["./mine.py:Database"]
services:
  db: {service_type: Database, options: {size: 3}}
  api: {command: x}
"""


def content(project: Project, name: str = "db") -> tuple[str, str]:
    return project.services[name].content.service_type, project.services[name].content.handler


def test_a_type_of_the_file_is_found_and_its_code_is_content(tmp_path: Path) -> None:
    write(tmp_path, MINE, "mine.py")
    path, cache = write(tmp_path, TEXT), MemoryCache()
    first = load_project([path], environ={}, cache=cache)
    assert content(first) == ("Database", f"{tmp_path}/mine.py:Database") and content(first, "api")[1] == ""
    assert list(first.services["db"].content.files) == ["mine.py"]
    assert first.plugins == first.settings.plugins == (f"{tmp_path}/mine.py:Database",)
    assert load_project([path], environ={}, cache=cache) == first and cache.hits == 1
    write(tmp_path, MINE + "# edited\n", "mine.py")
    edited = load_project([path], environ={}, cache=cache)
    assert edited.services["db"].run_hash != first.services["db"].run_hash
    assert edited.services["api"].run_hash == first.services["api"].run_hash


def test_a_remembered_file_does_not_hide_that_a_type_is_gone(tmp_path: Path) -> None:
    write(tmp_path, MINE, "mine.py")
    path, cache = write(tmp_path, TEXT), MemoryCache()
    load_project([path], environ={}, cache=cache)
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ConfigError, match=r"plugins\[0\] of deploy-code.yaml"):
        load_project([path], environ={}, cache=cache)


def test_types_registered_in_code_neither_take_from_the_cache_nor_leave_anything_in_it(tmp_path: Path) -> None:
    path = write(tmp_path, "services:\n  db: {service_type: custom, command: x}\n")
    cache = MemoryCache()
    assert content(load_project([path], environ={}, cache=cache)) == ("process", "")
    mine = load_project([path], environ={}, cache=cache, code_types=["custom"])
    assert content(mine) == ("custom", "")
    assert content(load_project([path], environ={}, cache=cache)) == ("process", "")


def test_a_type_of_the_file_and_one_of_code_may_not_share_a_name(tmp_path: Path) -> None:
    write(tmp_path, MINE, "mine.py")
    path = write(tmp_path, TEXT + "  other: {service_type: unknown}\n")
    with pytest.raises(ConfigError, match='two things are called service type "Database"'):
        load_project([path], environ={}, code_types=["Database"])
