"""Code is content: what is hashed, what is left out, and that a copy of a release has the digest of its source."""

import os
import shutil
from pathlib import Path

import pytest

from config_kit import load, write
from deploy_code.config import load_project
from deploy_code.config.content import left_out, release_tree, tree_digest
from deploy_code.errors import ConfigError
from deploy_code.model import Content, Release


def content(folder: Path, service: str) -> Content:
    found = load_project([write(folder, f"services:\n  a: {service}\n")], environ={})
    return found.services["a"].content


def test_files_that_command_and_args_name_are_hashed_and_an_edit_is_a_change(tmp_path: Path) -> None:
    for name in ("run.sh", "app.py", "app.toml", "data.db"):
        write(tmp_path, "1", name)
    service = "{command: ./run.sh, args: [app.py, --config=app.toml, gone.py, data.db, --db=data.db, '']}"
    before = content(tmp_path, service)
    assert sorted(before.files) == ["app.py", "app.toml", "run.sh"]
    write(tmp_path, "2", "app.py")
    after = content(tmp_path, service)
    assert after.files["app.py"] != before.files["app.py"] and after.files["run.sh"] == before.files["run.sh"]


def test_args_are_seen_from_the_working_directory_and_only_under_the_folder_of_the_file(tmp_path: Path) -> None:
    inner, outer = tmp_path / "in", tmp_path / "outside.py"
    (inner / "sub").mkdir(parents=True)
    outer.write_text("x")
    (inner / "sub" / "app.py").write_text("x")
    found = content(
        inner, f"{{command: python, args: [app.py, ../../outside.py, {outer}, /etc/passwd], working_dir: sub}}"
    )
    assert list(found.files) == ["sub/app.py"]


def test_the_volumes_of_a_service_are_not_its_code(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.conf").write_text("x")
    assert content(tmp_path, "{command: x, args: [data/x.conf], volumes: [{name: d, mount_path: data}]}").files == {}


def test_globs_name_files_and_whole_folders_without_caches(tmp_path: Path) -> None:
    for name in ("a.py", "lib/b.py", "lib/deep/c.txt", "lib/__pycache__/b.pyc", "lib/.git/x", "d.pyc", "conf/e.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert sorted(content(tmp_path, "{command: x, files: ['*.py', lib]}").files) == [
        "a.py",
        "lib/b.py",
        "lib/deep/c.txt",
    ]
    assert sorted(content(tmp_path, "{command: x, files: '**/*.toml'}").files) == ["conf/e.toml"]


def test_a_glob_that_matches_nothing_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, "services: {a: {command: x, files: ['*.nope'], health_check: {command: ['true']}}}")
    found = load_project([path], environ={})
    assert found.warnings == ("warning: services.a.files: '*.nope' matches nothing",)
    assert found.services["a"].content.files == {}


def test_a_file_that_args_name_under_files_too_is_hashed_even_if_it_looks_like_data(tmp_path: Path) -> None:
    write(tmp_path, "x", "seed.db")
    assert list(content(tmp_path, "{command: x, args: [seed.db], files: [seed.db]}").files) == ["seed.db"]


def test_a_release_has_a_digest_over_names_modes_and_contents(tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "run").write_text("#!/bin/sh\n")
    service = "{command: ./src/bin/run, args: [bin/run], release: src}"

    def digest() -> str:
        found = content(tmp_path, service)
        assert found.release is not None and found.files == {}
        return found.release.digest

    seen = [digest()]
    (source / "bin" / "run").chmod(0o755)
    seen.append(digest())
    (source / "bin" / "run").write_text("#!/bin/sh\nexit 1\n")
    seen.append(digest())
    (source / "bin" / "link").symlink_to("run")
    seen.append(digest())
    (source / "bin" / "run").rename(source / "bin" / "walk")
    seen.append(digest())
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").touch()
    (source / "empty").mkdir()
    assert len(set(seen)) == 5 and digest() == seen[-1]


def test_a_copy_made_with_left_out_has_the_digest_of_its_source(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for name in ("a/b/c.py", "a/d.pyc", ".git/x", "data/big", "e", "a/data/kept"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    os.mkfifo(source / "pipe")
    (source / "a" / "link").symlink_to("/nowhere")
    release = Release(source=str(source), digest="", exclude=("data",))
    shutil.copytree(source, tmp_path / "copy", symlinks=True, ignore=left_out(release))
    assert tree_digest(str(tmp_path / "copy")) == tree_digest(str(source), release.exclude)
    assert [entry.relative for entry in release_tree(release)] == ["a/b/c.py", "a/data/kept", "a/link", "e"]
    assert not (tmp_path / "copy" / "data").exists() and not (tmp_path / "copy" / "pipe").exists()


@pytest.mark.parametrize("release", ["gone", "deploy-code.yaml"])
def test_a_release_that_is_no_folder_is_s003_at_load_and_no_matter_of_validate(tmp_path: Path, release: str) -> None:
    text = f"services: {{a: {{command: x, release: {release}}}}}"
    load(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"services.a.release: '{tmp_path}/{release}' cannot be read: .*\[S003\]"):
        load_project([write(tmp_path, text)], environ={})


def test_a_folder_to_build_from_has_a_digest_without_our_own_folders(tmp_path: Path) -> None:
    text = "infrastructure: {storage: {data_dir: data, log_dir: logs}}\nservices: {a: {build: .}}"
    path = write(tmp_path, text)
    write(tmp_path, "FROM scratch\n", "Dockerfile")

    def digest() -> str:
        build = load_project([path], environ={}).services["a"].content.container.build
        assert build is not None and build.digest
        return build.digest

    first = digest()
    for folder in ("data", "logs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "state.db").write_text("changes by itself")
    assert digest() == first
    write(tmp_path, "FROM scratch\nCOPY . /\n", "Dockerfile")
    assert digest() != first


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ("gone", "gone/Dockerfile' cannot be read"),
        ("{context: ., dockerfile: Other}", "Other' cannot be read"),
        ("ignored", "is no pattern"),
    ],
)
def test_a_build_that_cannot_be_read_is_s003_at_load(tmp_path: Path, build: str, words: str) -> None:
    (tmp_path / "ignored").mkdir()
    write(tmp_path, "FROM scratch\n", "ignored/Dockerfile")
    write(tmp_path, "a[\n", "ignored/.dockerignore")
    with pytest.raises(ConfigError, match=r"services\.a\.build: .*\[S003\]") as caught:
        load_project([write(tmp_path, f"services: {{a: {{build: {build}}}}}")], environ={})
    assert words in str(caught.value)
