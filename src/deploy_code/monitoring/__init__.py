"""What this machine and the services on it use. Loaded lazily: import only what is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_code.monitoring.collector import MetricsCollector
    from deploy_code.monitoring.values import InstanceMetrics, ServiceMetrics, SystemMetrics

__all__ = ["InstanceMetrics", "MetricsCollector", "ServiceMetrics", "SystemMetrics"]


def __getattr__(name: str) -> object:
    if name == "MetricsCollector":
        from deploy_code.monitoring.collector import MetricsCollector

        return MetricsCollector
    if name in __all__:
        from deploy_code.monitoring import values

        return getattr(values, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
