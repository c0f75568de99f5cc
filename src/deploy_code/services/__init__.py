"""Words for how a service is doing."""

from deploy_code.services.status import ServiceStatus

__all__ = ["ServiceStatus"]
