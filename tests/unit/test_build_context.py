"""What is sent to be built, and what makes a build another one."""

import io
import os
import tarfile
from dataclasses import replace

import pytest

from deploy_code.config.build_context import OUTSIDE, build_digest, context_entries
from deploy_code.errors import StalePlanError
from deploy_code.model import Build
from deploy_code.orchestrator.context_tar import context_tar


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "context"
    (folder / "src").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (folder / "src" / "app.py").write_text("print(1)\n")
    (folder / "src" / "tool").write_text("#!/bin/sh\n")
    (folder / "src" / "tool").chmod(0o755)
    (folder / "link").symlink_to("src/app.py")
    (folder / "empty").mkdir()
    return folder


def of(folder, **changes):
    return Build(context=str(folder), **changes)


def names(build):
    return [entry.relative for entry in context_entries(build)]


async def sent(build):
    data = b"".join([part async for part in context_tar(replace(build, digest=build_digest(build)))])
    return tarfile.open(fileobj=io.BytesIO(data))


def test_all_of_the_context_is_sent_folders_before_what_is_in_them(context):
    assert names(of(context)) == ["Dockerfile", "empty", "link", "src", "src/app.py", "src/tool"]


async def test_the_tar_has_modes_links_and_contents_and_belongs_to_root(context):
    (context / "src" / "large").write_bytes(os.urandom(700_001))
    (context / ("n" * 150)).write_text("a long name")
    (context / "ü\n").write_text("a strange one")
    with await sent(of(context)) as tar:
        found = {member.name: member for member in tar}
        assert found.keys() == {*names(of(context))}
        assert found["src"].isdir() and found["empty"].isdir()
        assert (found["src/tool"].mode, found["src/app.py"].mode) == (
            0o755,
            (context / "src/app.py").stat().st_mode & 0o777,
        )
        assert found["link"].issym() and found["link"].linkname == "src/app.py"
        assert {member.uid for member in found.values()} == {0}
        large = tar.extractfile("src/large")
        assert large is not None and large.read() == (context / "src" / "large").read_bytes()


async def test_a_context_that_changes_while_it_is_sent_is_not_built(context):
    build = replace(of(context), digest=build_digest(of(context)))
    (context / "src" / "app.py").write_text("print(2)\n")
    with pytest.raises(StalePlanError, match="changed while it was being sent"):
        async for _ in context_tar(build):
            pass


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "src" / "app.py").write_text("print(2)\n"),
        lambda folder: (folder / "Dockerfile").write_text("FROM scratch\n"),
        lambda folder: (folder / "src" / "app.py").chmod(0o600),
        lambda folder: (folder / "src" / "app.py").rename(folder / "src" / "b.py"),
        lambda folder: (folder / "new").mkdir(),
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("src/tool")),
    ],
    ids=["content", "Dockerfile", "mode", "name", "folder", "link"],
)
def test_a_change_of_what_is_sent_is_another_build(context, change):
    before = build_digest(of(context))
    change(context)
    assert build_digest(of(context)) != before


def test_arguments_target_and_another_dockerfile_are_another_build(context):
    (context / "Other").write_text("FROM scratch\nCOPY . /\n")
    builds = [of(context), of(context, args={"A": "1"}), of(context, args={"A": "2"}), of(context, target="x")]
    builds.append(of(context, dockerfile="Other"))
    assert len({build_digest(build) for build in builds}) == len(builds)


def test_what_is_not_sent_changes_nothing(context):
    (context / ".dockerignore").write_text("logs\n*.tmp\n!keep.tmp\n")
    build = of(context, exclude=("data",))
    before = build_digest(build)
    for path in ("logs", "data"):
        (context / path).mkdir()
        (context / path / "x").write_text("x")
    (context / "a.tmp").write_text("x")
    os.utime(context / "src" / "app.py", (1, 1))
    assert build_digest(build) == before
    (context / "keep.tmp").write_text("x")
    assert build_digest(build) != before


def test_a_copy_elsewhere_is_the_same_build(context, tmp_path):
    import shutil

    shutil.copytree(context, tmp_path / "copy", symlinks=True)
    assert build_digest(of(tmp_path / "copy")) == build_digest(of(context))


def test_the_dockerfile_goes_along_even_where_it_is_ignored(context):
    (context / ".dockerignore").write_text("**\n")
    (context / "deploy").mkdir()
    (context / "deploy" / "Dockerfile").write_text("FROM scratch\n")
    assert names(of(context, dockerfile="deploy/Dockerfile")) == [".dockerignore", "deploy/Dockerfile"]


def test_a_dockerfile_may_have_an_ignore_file_of_its_own(context):
    (context / ".dockerignore").write_text("src\n")
    (context / "Dockerfile.dockerignore").write_text("empty\n")
    found = names(of(context))
    assert "src/app.py" in found and "empty" not in found


async def test_a_dockerfile_outside_of_the_context_is_sent_under_a_name_of_its_own(context, tmp_path):
    (tmp_path / "Dockerfile.outside").write_text("FROM scratch\n# outside\n")
    build = of(context, dockerfile="../Dockerfile.outside")
    with await sent(build) as tar:
        file = tar.extractfile(OUTSIDE)
        assert file is not None and b"# outside" in file.read()


def test_sockets_and_pipes_are_left_out(context):
    os.mkfifo(context / "pipe")
    assert "pipe" not in names(of(context))


def test_a_missing_dockerfile_is_named(context):
    with pytest.raises(FileNotFoundError) as caught:
        build_digest(of(context, dockerfile="Missing"))
    assert str(caught.value.filename).endswith("/context/Missing")
