"""Compose's own sample files, in our words: imported they mean what they say, exported again they say it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy_code.config import check_files
from support.compose_kit import NAMES, VARIABLES, ComposeFolder, Meaning, meaning_of_compose, meaning_of_ours


@pytest.fixture
def folder(tmp_path: Path) -> ComposeFolder:
    return ComposeFolder(tmp_path, **VARIABLES)


def without(meaning: dict[str, Meaning], *keys: str) -> dict[str, Meaning]:
    return {name: {key: value for key, value in found.items() if key not in keys} for name, found in meaning.items()}


def active(config: dict[str, Any]) -> dict[str, Any]:
    """Services of inactive profiles are listed by docker-compose, and are not there for us."""
    return {
        **config,
        "services": {name: found for name, found in config["services"].items() if "profiles" not in found},
    }


def brought_together(meaning: dict[str, Meaning]) -> dict[str, Meaning]:
    """One program and its arguments, however they are split in two; an image's own program gets arguments only."""
    return {
        name: {**found, "entrypoint": bool(found["entrypoint"]), "command": [*found["entrypoint"], *found["command"]]}
        for name, found in meaning.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_imported_sample_passes_validate(name: str, folder: ComposeFolder) -> None:
    path = folder.ours(folder.imported(folder.sample(name)).text)
    assert check_files([path], environ=folder.env)[0] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_imported_sample_passes_validate_without_any_variable_but_those_it_insists_on(
    name: str, folder: ComposeFolder
) -> None:
    file = folder.sample(name)
    del folder.env["DB_USER"]
    path = folder.ours(folder.imported(file).text)
    assert check_files([path], environ=folder.env)[0] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_means_what_docker_compose_reads_in_it_imported_and_exported_again(
    name: str, folder: ComposeFolder
) -> None:
    file = folder.sample(name)
    imported = folder.imported(file).text
    theirs = meaning_of_compose(active(folder.normalised(file)))
    ours = meaning_of_ours(folder.ours(imported), folder.env)
    assert brought_together(ours) == brought_together(theirs)
    again = folder.write(folder.exported(imported).text, "again.yml")
    after = meaning_of_compose(active(folder.normalised(again)))
    # secrets come back as what they are here, files mounted; volumes without a name have one
    assert brought_together(without(after, "volumes")) == brought_together(without(theirs, "volumes"))


@pytest.mark.parametrize("name", NAMES)
def test_no_value_of_a_variable_is_written_into_either_file(name: str, folder: ComposeFolder) -> None:
    ours = folder.imported(folder.sample(name)).text
    assert VARIABLES["POSTGRES_PASSWORD"] not in ours + folder.exported(ours).text


def test_a_service_of_a_profile_that_is_not_active_is_there_and_disabled(folder: ComposeFolder) -> None:
    done = folder.imported(folder.sample("vuejs"))
    assert "  test:\n    enabled: false\n" in done.text
    assert "enabled: false" not in folder.imported(folder.sample("vuejs"), profiles=["test"]).text
