"""Text to a checked config, and that to the plain data the engine works on.

Public names load when first used: ``find_identity`` needs neither YAML nor models, and a config that has not changed
comes from the cache without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_code.config.cache import ResolvedCache as ResolvedCache
    from deploy_code.config.cache import load_project as load_project
    from deploy_code.config.cache import project_of as project_of
    from deploy_code.config.editor import json_schema as json_schema
    from deploy_code.config.fields import AuthMethod as AuthMethod
    from deploy_code.config.fields import ContainerRuntime as ContainerRuntime
    from deploy_code.config.fields import Environment as Environment
    from deploy_code.config.fields import NetworkMode as NetworkMode
    from deploy_code.config.fields import Orchestrator as Orchestrator
    from deploy_code.config.fields import Protocol as Protocol
    from deploy_code.config.fields import RestartPolicy as RestartPolicy
    from deploy_code.config.fields import Severity as Severity
    from deploy_code.config.identity import find_identity as find_identity
    from deploy_code.config.loader import check_files as check_files
    from deploy_code.config.loader import load_config as load_config
    from deploy_code.config.schema import AlertingConfig as AlertingConfig
    from deploy_code.config.schema import AlertRule as AlertRule
    from deploy_code.config.schema import AuthConfig as AuthConfig
    from deploy_code.config.schema import CircuitBreakerConfig as CircuitBreakerConfig
    from deploy_code.config.schema import DependencyConfig as DependencyConfig
    from deploy_code.config.schema import DeploymentConfig as DeploymentConfig
    from deploy_code.config.schema import DeploymentSettings as DeploymentSettings
    from deploy_code.config.schema import GrafanaConfig as GrafanaConfig
    from deploy_code.config.schema import HealthCheckConfig as HealthCheckConfig
    from deploy_code.config.schema import HooksConfig as HooksConfig
    from deploy_code.config.schema import InfrastructureConfig as InfrastructureConfig
    from deploy_code.config.schema import MonitoringConfig as MonitoringConfig
    from deploy_code.config.schema import NetworkConfig as NetworkConfig
    from deploy_code.config.schema import OvercommitConfig as OvercommitConfig
    from deploy_code.config.schema import PortConfig as PortConfig
    from deploy_code.config.schema import PortRange as PortRange
    from deploy_code.config.schema import PrometheusConfig as PrometheusConfig
    from deploy_code.config.schema import RbacConfig as RbacConfig
    from deploy_code.config.schema import ResourceRequirements as ResourceRequirements
    from deploy_code.config.schema import RestartConfig as RestartConfig
    from deploy_code.config.schema import RoleConfig as RoleConfig
    from deploy_code.config.schema import SecurityConfig as SecurityConfig
    from deploy_code.config.schema import ServiceConfig as ServiceConfig
    from deploy_code.config.schema import StorageConfig as StorageConfig
    from deploy_code.config.schema import VolumeConfig as VolumeConfig

_SCHEMA = (
    "AlertRule AlertingConfig AuthConfig CircuitBreakerConfig DependencyConfig DeploymentConfig DeploymentSettings"
    " GrafanaConfig HealthCheckConfig HooksConfig InfrastructureConfig MonitoringConfig NetworkConfig OvercommitConfig"
    " PortConfig PortRange PrometheusConfig RbacConfig ResourceRequirements RestartConfig RoleConfig SecurityConfig"
    " ServiceConfig StorageConfig VolumeConfig"
).split()
_NAMES = "AuthMethod ContainerRuntime Environment NetworkMode Orchestrator Protocol RestartPolicy Severity".split()
_HOMES = {
    "ResolvedCache": "cache",
    "load_project": "cache",
    "project_of": "cache",
    "json_schema": "editor",
    "find_identity": "identity",
    "check_files": "loader",
    "load_config": "loader",
    **dict.fromkeys(_NAMES, "fields"),
    **dict.fromkeys(_SCHEMA, "schema"),
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
