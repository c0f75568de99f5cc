"""Strategies, simple and cautious, keep what every one of them promises."""

from __future__ import annotations

from deploy_code.orchestrator import DeploymentReport, DeploymentStrategy
from deploy_code.testing.contracts import StrategyContract
from support.pages import names_of


class AllAtOnce(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services)
        return DeploymentReport.succeeded(deployed_services=len(services))


class TestAllAtOnce(StrategyContract):
    strategy = AllAtOnce


class TestCanaryOfTheHowTo(StrategyContract):
    strategy = names_of("how-to/strategy.md")["CanaryDeployment"]
    options = {"percentage": 0.5, "watch_seconds": 0.01}  # noqa: RUF012 - as an author writes it
