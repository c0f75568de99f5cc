"""The documentation is true: files load, programs run, commands and links are there, and nothing is left out.

How blocks are marked, after the word that names the language:

- ``yaml``: a whole file; loads without errors. ``yaml fragment``: a piece of one, whose keys exist.
  ``yaml overlay``: loads together with the whole file before it.
- ``python``: compiles. ``python run``: runs to its end beside the first whole file of its page. ``python test``: pytest
  passes it, without any plugin of ours.
- ``console``: a session; lines that begin with ``$ `` are commands. ``sh``: every line is a command.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import mypy.api
import pytest
import yaml

from deploy_code.cli.lazy import COMMANDS
from deploy_code.cli.main import ROOT
from deploy_code.cli.options import Options
from deploy_code.config import json_schema, load_config
from deploy_code.config.advice import advice
from deploy_code.config.check import check
from deploy_code.errors import CATALOGUE
from support.project import ProjectFolder

HOME = Path(__file__).parents[2]
DOCS = HOME / "docs"
WRITTEN_BY_OTHERS = (DOCS / "decisions", DOCS / "benchmarks.md")
PAGES = [
    HOME / "README.md",
    *(
        page
        for page in sorted(DOCS.rglob("*.md"))
        if not any(page.is_relative_to(other) for other in WRITTEN_BY_OTHERS)
    ),
]
VARIABLES = {name: f"value-of-{name}" for name in ("API_KEY", "DB_PASSWORD", "POSTGRES_PASSWORD")}
BLOCK = re.compile(r"^```(?P<mark>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """One fenced block. ``mark`` is what stands behind the fence."""

    page: Path
    line: int
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(HOME)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match["mark"].strip(), match["text"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def marked(*marks: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.mark in marks]


def whole_file_of(page: Path) -> Block:
    return next(block for block in BLOCKS if block.page == page and block.mark == "yaml")


def relative(page: Path) -> str:
    return str(page.relative_to(HOME))


# --------------------------------------------------------------------------- YAML


def write_file(folder: Path, name: str, text: str) -> Path:
    """A file of the page, with what it names lying beside it."""
    document = yaml.safe_load(text)
    for service in document.get("services", {}).values():
        if service.get("release"):
            (folder / service["release"]).mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("block", marked("yaml"))
def test_every_whole_file_loads_without_errors_and_asks_for_nothing_that_is_not_there_yet(
    block: Block, tmp_path: Path
) -> None:
    config = load_config([write_file(tmp_path, "deploy-code.yaml", block.text)], environ=VARIABLES)
    assert check(config) == []
    assert not [line for line in advice(config) if "not acted on" in line]


@pytest.mark.parametrize("block", marked("yaml overlay"))
def test_every_overlay_loads_together_with_the_file_before_it(block: Block, tmp_path: Path) -> None:
    base = write_file(tmp_path, "deploy-code.yaml", whole_file_of(block.page).text)
    over = write_file(tmp_path, "overlay.yaml", block.text)
    assert check(load_config([base, over], environ=VARIABLES)) == []


@pytest.mark.parametrize("block", marked("yaml fragment"))
def test_every_fragment_uses_only_keys_that_exist(block: Block) -> None:
    known = {path.rpartition(".")[2].removesuffix("[]") for path in schema_paths()}
    assert keys_of(yaml.safe_load(block.text)) <= known


CHOSEN_BY_USERS = ("env", "args", "extra_hosts", "labels", "log_options")


def keys_of(document: dict[str, Any]) -> set[str]:
    """All keys but those that users choose: names of services, of variables, of hosts, of labels."""
    found: set[str] = set()
    for key, value in document.items():
        found.add(key)
        if key == "services":
            for service in value.values():
                found |= keys_of(service)
        elif isinstance(value, dict) and key not in CHOSEN_BY_USERS:
            found |= keys_of(value)
    return found


def test_a_yaml_block_that_looks_like_a_whole_file_is_marked_as_one() -> None:
    known = {"yaml", "yaml fragment", "yaml overlay"}
    assert [str(block) for block in BLOCKS if block.mark.startswith("yaml") and block.mark not in known] == []
    assert whole_file_of(DOCS / "tutorial.md").text.startswith("name:")


# --------------------------------------------------------------------------- Python


@pytest.mark.parametrize("block", marked("python", "python run", "python test"))
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_every_program_is_well_typed(tmp_path: Path) -> None:
    """By mypy, as a user with type checks has it. Names that an earlier block made are nobody's business here."""
    for number, block in enumerate(block for block in BLOCKS if block.mark.startswith("python")):
        (tmp_path / f"block_{number}.py").write_text(f"# {block}\n{block.text}")
    options = ["--check-untyped-defs", "--disable-error-code=name-defined", f"--cache-dir={tmp_path / 'cache'}"]
    found, told, code = mypy.api.run([*options, "--config-file=", str(tmp_path)])
    assert code == 0, found + told


@pytest.mark.parametrize("block", marked("python run"))
def test_every_program_that_can_run_does(
    block: Block, make_project: Callable[..., ProjectFolder], tmp_path: Path
) -> None:
    project: ProjectFolder = make_project("docs")
    storage = {"data_dir": str(project.data_dir), "log_dir": str(project.log_dir)}
    document = yaml.safe_load(whole_file_of(block.page).text)
    document.pop("plugins", None)
    project.write_text(yaml.safe_dump({**document, "name": "docs", "infrastructure": {"storage": storage}}))
    project.program("example.py", block.text)
    environ = {**os.environ, **project.env}
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=project.folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    project.settle()


@pytest.mark.parametrize("block", marked("python test"))
def test_every_test_module_passes(block: Block, tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(block.text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "test_page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_of_the_how_to_can_be_loaded_and_survives_being_called(tmp_path: Path) -> None:
    from deploy_code.plugins import Plugin

    page = DOCS / "how-to" / "plugin.md"
    first = next(block for block in BLOCKS if block.page == page and block.mark == "python")
    names: dict[str, Any] = {}
    exec(compile(first.text, str(first), "exec"), names)
    assert isinstance(names["Notify"](), Plugin)


# --------------------------------------------------------------------------- commands


def commands_of(page: Path) -> Iterator[tuple[str, str]]:
    """(where, command line) of every ``deploy-code`` that the page shows."""
    for block in blocks_of(page):
        for number, line in enumerate(block.text.splitlines(), block.line + 1):
            shown = line.removeprefix("$ ") if block.mark == "console" and line.startswith("$ ") else ""
            for found in re.findall(r"deploy-code(?: [^|&;#)\"]*)", shown or (line if block.mark == "sh" else "")):
                yield f"{relative(page)}:{number}", found
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for found in re.findall(r"`((?:python -m deploy_code|deploy-code) [^`]+)`", text):
        yield relative(page), found


SHOWN = [pytest.param(line, id=f"{where} {line}") for page in PAGES for where, line in commands_of(page)]


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_line_that_is_shown_exists_with_its_options(line: str) -> None:
    words = shlex.split(line.split(" > ")[0])
    args = words[3:] if words[0] == "python" else words[1:]
    args = ["3" if word in ("N",) else word for word in args if word not in ("COMMAND",)]
    parse(ROOT, "deploy-code", args, None)


def parse(command: click.Command, name: str, args: list[str], parent: click.Context | None) -> None:
    """Parse the whole line, down to the last command, running none. Raises what a user would see."""
    try:
        ctx = command.make_context(name, list(args), parent=parent, obj=None if parent else Options())
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        return  # --help, --version, and groups that show their help
    rest = [*ctx._protected_args, *ctx.args]
    if rest and isinstance(command, click.Group):
        found, sub, left = command.resolve_command(ctx, rest)
        assert sub is not None and found is not None
        parse(sub, found, left, ctx)


def subcommands() -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(ROOT, info_name="deploy-code")
    for name in COMMANDS:
        command = ROOT.get_command(ctx, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for sub in command.list_commands(ctx):
                found = command.get_command(ctx, sub)
                assert found is not None
                yield f"{name} {sub}", found


def test_the_page_about_the_command_line_names_every_command_and_every_option() -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    missing: list[str] = []
    for name, command in subcommands():
        if f"deploy-code {name}" not in text:
            missing.append(name)
        options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
        missing += [f"{name} {word}" for option in options for word in option.opts if f"`{word}" not in text]
    assert missing == []


def test_the_readme_names_every_command() -> None:
    text = (HOME / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`deploy-code {name}" not in text] == []


# --------------------------------------------------------------------------- keys, codes, names


def schema_paths() -> set[str]:
    """Every key of the file as a dotted path: ``services.*.ports[].host_port``."""
    schema = json_schema()
    found: set[str] = set()

    def walk(node: dict[str, Any], path: str) -> None:
        if "$ref" in node:
            walk(schema["$defs"][node["$ref"].rpartition("/")[2]], path)
        for part in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
            walk(part, path)
        for key, value in node.get("properties", {}).items():
            deeper = f"{path}.{key}" if path else key
            if deeper not in found:
                found.add(deeper)
                walk(value, deeper)
        if isinstance(node.get("items"), dict):
            walk(node["items"], f"{path}[]")
        if isinstance(node.get("additionalProperties"), dict):
            walk(node["additionalProperties"], f"{path}.*")

    walk(schema, "")
    return found


def test_the_page_about_the_file_names_every_key() -> None:
    text = (DOCS / "reference" / "file.md").read_text(encoding="utf-8")
    sections = dict(sections_of(text))
    missing = [path for path in sorted(schema_paths()) if not is_named(path, text, sections)]
    assert missing == []


def sections_of(text: str) -> Iterator[tuple[str, str]]:
    """(heading, what stands below it), smaller headings included in greater ones."""
    lines = text.splitlines()
    heads = [(number, line) for number, line in enumerate(lines) if re.match(r"#+ ", line)]
    for position, (number, line) in enumerate(heads):
        depth = len(line) - len(line.lstrip("#"))
        following = (n for n, other in heads[position + 1 :] if len(other) - len(other.lstrip("#")) <= depth)
        yield line.lstrip("# "), "\n".join(lines[number : next(following, len(lines))])


def is_named(path: str, text: str, sections: dict[str, str]) -> bool:
    """In the table of its own section or by its path from there; a section also by the path of a key in it."""
    parts = path.replace("services.*.", "services.").split(".")
    for split in range(len(parts)):
        head, rest = ".".join(parts[:split]).removesuffix("[]"), ".".join(parts[split:])
        below = sections.get(head or "Root", "")
        if any(f"`{rest}{end}" in below for end in ("`", ".", "[].")):
            return True
    return False


def test_the_page_about_errors_names_every_code_with_its_name_and_exit_code() -> None:
    text = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([ES]\d{3}) \| (\w+) \| (\d+) \|", text, re.MULTILINE)
    assert {code: (name, int(code_)) for code, name, code_ in rows} == {
        code: (info.name, info.exit_code) for code, info in CATALOGUE.items()
    }


def test_no_page_names_a_code_that_does_not_exist() -> None:
    named = {code for page in PAGES for code in re.findall(r"\b[ES]0\d\d\b", page.read_text(encoding="utf-8"))}
    assert named <= set(CATALOGUE)


def test_the_page_about_events_names_every_event_and_field() -> None:
    from dataclasses import fields

    from deploy_code.events import Event

    text = (DOCS / "reference" / "events.md").read_text(encoding="utf-8")
    missing: list[str] = []
    for kind in Event.__subclasses__():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{kind.__name__}`")), "")
        own = {field.name for field in fields(kind)} - {field.name for field in fields(Event)}
        missing += [f"{kind.__name__}.{name}" for name in sorted(own) if f"`{name}`" not in row] if row else [str(kind)]
    assert missing == []


def test_the_page_about_python_names_everything_that_is_public() -> None:
    import deploy_code
    import deploy_code.testing.contracts
    from deploy_code import testing
    from deploy_code.client import DeployCode
    from deploy_code.orchestrator.report import DeploymentReport, FailureReport

    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    names = [*deploy_code.__all__, *(name for name in vars(DeployCode) if not name.startswith("_"))]
    names += [*DeploymentReport.__slots__, *FailureReport.__slots__]
    names += [*testing.__all__, *dir(testing.contracts)]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_the_page_about_python_shows_the_signatures_as_they_are() -> None:
    import inspect

    from deploy_code.client import DeployCode

    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    for name, function in inspect.getmembers(DeployCode, inspect.isfunction):
        if not name.startswith("_"):
            plain = [
                p.replace(annotation=inspect.Parameter.empty)
                for p in list(inspect.signature(function).parameters.values())[1:]
            ]
            shown = str(inspect.Signature(plain)).replace("'", '"')
            assert f"{name}{shown}`" in text


async def test_the_page_about_python_names_every_key_of_the_mappings(project: ProjectFolder) -> None:
    from deploy_code.orchestrator.status import health_of

    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    project.write({"web": {"command": "sleep", "args": ["60"]}})
    project.cli("deploy").ok()
    status = project.status("--detailed")
    web = status["services"]["web"]
    keys = {*status, *web, *web["instances"][0], *health_of(status)} - {"agent"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


# --------------------------------------------------------------------------- links


def anchors_of(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for match in LINK.finditer(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        place = (page.parent / target).resolve() if target else page
        if not place.exists() or (anchor and anchor not in anchors_of(place)):
            broken.append(match["target"])
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    named = {(DOCS / match["target"]).resolve() for match in LINK.finditer(index)}
    assert [relative(page) for page in PAGES if page not in named and page.name != "index.md"] == []
