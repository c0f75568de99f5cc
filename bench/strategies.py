"""What a custom strategy and ten plugins cost: the same deployment with and without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fleet import fleet
from measure import Figure, median, say, spread, take_turns
from product import Product, web_services

TITLE = "A custom strategy and ten plugins"
COMMAND = "python bench/run.py strategies"
SERVICES = 200
PLUGINS = 10  # half of them plain, half `async`
ROUNDS = 7

STRATEGY = """\
from deploy_code.orchestrator import DeploymentReport, DeploymentStrategy
from deploy_code.plugins import Plugin


class All(DeploymentStrategy):
    async def deploy(self, services):
        await self.deploy_services(services)
        return DeploymentReport.succeeded()

"""
PAIR = """

class {plain}(Plugin):
    def on_deployment_start(self, services): pass
    def on_deployment_complete(self, report): pass
    def before_service_rollout(self, service, revision): pass
    def after_service_rollout(self, service, revision): pass
    def on_failure(self, report): pass
    def on_rollback(self, report): pass
    def on_event(self, event): pass


class {awaiting}(Plugin):
    async def on_deployment_start(self, services): pass
    async def on_deployment_complete(self, report): pass
    async def before_service_rollout(self, service, revision): pass
    async def after_service_rollout(self, service, revision): pass
    async def on_failure(self, report): pass
    async def on_rollback(self, report): pass
    async def on_event(self, event): pass
"""
ALL = "./extensions.py:All"


def measure(services: int = SERVICES, rounds: int = ROUNDS) -> list[Figure]:
    with fleet(services) as web:
        product = Product(web.folder)
        bare = web_services(web)
        plugins = _extensions(web.folder)

        def turn(write: Callable[[], None]) -> Callable[[], float]:
            def deploy() -> float:
                product.forget()
                write()
                seconds = product.deploy()
                product.stop()
                return seconds

            return deploy

        say(f"{services} services, {rounds} rounds with and without a strategy and {PLUGINS} plugins")
        times = take_turns(
            {
                "without": turn(lambda: product.write(bare)),
                "with": turn(lambda: product.write(bare, plugins=[ALL, *plugins], strategy="All")),
            },
            rounds,
        )
        product.forget()
    ratio = median(times["with"]) / median(times["without"])
    return [
        Figure(name=f"`deploy`, {services} services", value=spread(times["without"])),
        Figure(
            name=f"the same through a custom strategy, with {PLUGINS} plugins that override every hook",
            value=f"{spread(times['with'])} = {ratio:.2f} ×",
            target="≤ 1.10 ×",
            met=ratio <= 1.10,
            note="hooks that do nothing, half of them `async`; whole command",
            command=COMMAND,
        ),
    ]


def _extensions(folder: Path) -> list[str]:
    """A file of them beside the config; the names of the plugins, as the config has them."""
    numbers = range(PLUGINS // 2)
    pairs = [PAIR.format(plain=f"Plain{number}", awaiting=f"Async{number}") for number in numbers]
    (folder / "extensions.py").write_text(STRATEGY + "".join(pairs))
    return [f"./extensions.py:{kind}{number}" for number in numbers for kind in ("Plain", "Async")]
