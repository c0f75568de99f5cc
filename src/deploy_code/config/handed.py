"""A config handed over as an object: whose it is, and where its project lies.

Read from a file or built in code: the same rules hold. What was built in code has the current folder of that moment as
its folder, and is the project of its own ``name``, or of that folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deploy_code.config.identity import DEFAULTS, identity_of
from deploy_code.config.source import Source, source_of
from deploy_code.errors import Problem

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.model import Identity, Project


def take(config: DeploymentConfig) -> DeploymentConfig:
    """``config``, bound to the folder it is handed over in where it has no file: a later ``chdir`` moves nothing."""
    if config._source is None:
        config._source = Source.none()
    return config


def folder_of(config: DeploymentConfig) -> str:
    """Where its relative paths start."""
    return source_of(config).folder


def project_in(
    config: DeploymentConfig, *, code_types: Collection[str] = (), code_strategies: Collection[str] = ()
) -> Project:
    """What it means now, hashed; files that it names are read anew. Raises ConfigError (E002) with all problems.

    ``code_types``, ``code_strategies``: what this process registered by calls.
    """
    from deploy_code.config.cache import project_of
    from deploy_code.config.loader import invalid

    source_of(config).env_files.clear()
    judged, problems = _judged(config, {*code_types, *code_strategies})
    if problems or judged is None:
        raise invalid(problems, source_of(config).files)
    return project_of(judged, code_types=code_types)


def _judged(config: DeploymentConfig, registered: Iterable[str]) -> tuple[DeploymentConfig | None, list[Problem]]:
    """``config`` anew, and all that is wrong with it.

    Anew, because code may have changed what its models checked: the mappings in them, and copies with other values.
    """
    from deploy_code.config.check import check
    from deploy_code.config.loader import validated
    from deploy_code.config.schema import ServiceConfig
    from deploy_code.config.write import given

    source = source_of(config)
    source = replace(source, pruned=set(source.pruned), registered=frozenset(registered))
    services: Mapping[str, object] = config.services
    strangers: Any = {name: each for name, each in services.items() if not isinstance(each, ServiceConfig)}
    data = given(config)
    for name in strangers:
        del data["services"][name]
    judged, problems = validated(data, source)
    if judged is not None:
        judged._source = source
        judged.services.update(strangers)
        problems += check(judged)
    return judged, problems


def problems_of_one(name: str, service: object, folder: str = "", registered: Iterable[str] = ()) -> list[Problem]:
    """What is wrong with one service by itself: what it needs of others is not asked. Paths start at ``folder``.

    ``registered``: types and strategies that this process registered by calls.
    """
    from deploy_code.config.schema import DeploymentConfig, ServiceConfig

    if not isinstance(service, ServiceConfig):
        found = f"must be a ServiceConfig, got {type(service).__name__}"
        return [Problem(found, code="S003", path=f"services.{name}")]
    config = DeploymentConfig(services={name: service})
    config._source = Source(folder=folder or os.getcwd(), environ=os.environ)
    return [problem for problem in _judged(config, registered)[1] if problem.code != "E007"]


def identity_in(config: DeploymentConfig) -> Identity:
    """Name and folders of its project. Creates nothing. Raises StateError (S005)."""
    source = source_of(config)
    owner = source.paths or _owner(config, source.folder)
    return identity_of(source.folder, _written(config), files=owner, environ=source.environ)


def _owner(config: DeploymentConfig, folder: str) -> tuple[str, ...]:
    """What the state notes down in place of a file: a config with a name is the same one wherever it is built."""
    return () if config.name else (os.path.join(folder, ""),)


def _written(config: DeploymentConfig) -> Mapping[str, str]:
    storage = config.infrastructure.storage
    given = {key: getattr(storage, key) for key in DEFAULTS if key in storage.model_fields_set}
    return {"name": config.name or "", "environment": str(config.environment), **given}
