"""Projects whose config is built in code: no file anywhere."""

from __future__ import annotations

from typing import Any

from deploy_code.config import DeploymentConfig, InfrastructureConfig, ServiceConfig, StorageConfig
from support.project import ProjectFolder


def config_of(project: ProjectFolder, **services: dict[str, Any]) -> DeploymentConfig:
    """A config with state and logs in the project's own folder; services as `support.scenarios` makes them."""
    return DeploymentConfig(
        name=project.name,
        environment="development",
        infrastructure=InfrastructureConfig(
            storage=StorageConfig(data_dir=str(project.data_dir), log_dir=str(project.log_dir))
        ),
        deployment={"timeout_seconds": 10},
        services={name: ServiceConfig(**service) for name, service in services.items()},
    )
