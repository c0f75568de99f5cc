"""What the API document shows in Rust is there in Python by the same names: each block has a counterpart, and it runs.

The Rust blocks are taken out of the document, the counterparts out of `docs/reference/rust.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.api_document import blocks, document
from support.project import ProjectFolder
from support.scenarios import pids, states
from support.town import build, run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rust.md"

# Words of Rust and its library, and what Python says differently.
RUST = frozenset(
    """use let mut await async fn pub struct impl for self match in if else as dyn Ok Some None Result String Vec
    Box Self HashMap vec println eprintln to_string std collections path time tokio anyhow main async_trait f32
    usize true false Duration from_secs len err requirements default new insert""".split()
)
SPELLED = {"Running": "RUNNING", "Failed": "FAILED"}
HANDLER = {"ServiceConfig": "InstanceConfig"}  # what a handler gets is resolved, for one instance
SUCCESS = re.compile(r"DeploymentReport::success\b")  # an attribute has this name in Python


def rust_blocks() -> list[str]:
    return blocks(document(), "rust")


def counterparts() -> list[str]:
    return blocks(PAGE.read_text(encoding="utf-8"), "python")


def names(text: str) -> set[str]:
    """All words of a program, comments and texts aside, but not the `{names}` in texts."""
    code = re.sub(r"//[^\n]*|#\[[^\]]*\]", "", SUCCESS.sub("DeploymentReport::succeeded", text))
    code = re.sub(r'"[^"\n]*"', " ", code)
    return set(re.findall(r"[A-Za-z_]\w+", code))


def test_every_rust_block_has_its_counterpart_in_order_with_the_same_names() -> None:
    rust, python = rust_blocks(), counterparts()
    assert len(rust) == 9, "the document gained or lost blocks"
    assert len(python) == len(rust)
    for number, (there, here) in enumerate(zip(rust, python, strict=True), 1):
        spelled = SPELLED | HANDLER if "impl Service for" in there else SPELLED
        wanted = {spelled.get(name, name) for name in names(there) - RUST}
        assert len(wanted) > 3
        missing = {name for name in wanted if not re.search(rf"\b{name}\b", here)}
        assert not missing, f"block {number} lacks {sorted(missing)}"


@pytest.fixture
def town(make_project: Callable[..., ProjectFolder]) -> ProjectFolder:
    return build(make_project("town"))


def counterpart(number: int) -> str:
    """Counted from 1, as the blocks stand in the document."""
    return counterparts()[number - 1]


def test_the_orchestrator_deploys(town: ProjectFolder) -> None:
    assert run(town, counterpart(1)).ok().stdout == "Deployment success: True\n"
    assert set(states(town).values()) == {"running"}


def test_a_config_is_built_in_code(town: ProjectFolder) -> None:
    shown = run(town, counterpart(2)).ok().stdout
    for line in ("  myapp:", "    image: myapp:latest", "    replicas: 2", "      cpu_cores: 1.0", "    - database"):
        assert line in shown.splitlines(), shown


def test_a_registry_alone_registers_asks_and_stops(town: ProjectFolder) -> None:
    assert run(town, counterpart(3)).ok().output == ""


def test_the_registry_of_a_project_does_it_for_real(town: ProjectFolder) -> None:
    """The same program on `orchestrator.registry`, with a program that runs, and a deployment in between."""
    text = counterpart(3)
    for old, new in (
        ("registry = ServiceRegistry()", "orchestrator = DeploymentOrchestrator('deploy-code.yaml')"),
        ("registry.", "orchestrator.registry."),
        ('command="myapp", args=["serve"]', 'command="sleep", args=["1000"]'),
        ("    # Check service", "    await orchestrator.deploy(['myapp'])\n\n    # Check service"),
        ("import asyncio", "import asyncio\nfrom deploy_code import DeploymentOrchestrator"),
    ):
        assert old in text
        text = text.replace(old, new)
    assert run(town, text).ok().stdout == "Service is running\n"
    assert pids(town) == {}
    assert states(town)["myapp"] == "stopped"


def test_resources_are_allocated_or_refused_with_what_is_short(town: ProjectFolder) -> None:
    said = run(town, counterpart(4)).ok().stdout
    assert "Allocation(name='myapp'" in said or ("E004 INSUFFICIENT_RESOURCES" in said and "GPU" in said)
    assert "Resources available for deployment" in said


def test_the_machine_is_measured(town: ProjectFolder) -> None:
    said = run(town, counterpart(5)).ok().stdout
    for what in ("CPU", "Memory"):
        found = re.search(rf"^{what} Usage: ([\d.]+)%$", said, re.MULTILINE)
        assert found and 0 <= float(found[1]) <= 100
    assert "S001" in said


def test_the_complete_example_runs(town: ProjectFolder) -> None:
    said = run(town, counterpart(6)).ok().stdout
    assert said == "Deployment successful!\nDeployed: 3/3\nOverall health: healthy\n"


def test_the_complete_example_tells_what_failed(make_project: Callable[..., ProjectFolder]) -> None:
    town = build(make_project("town"), bad="exit 7")
    done = run(town, counterpart(6)).ok()
    assert done.stderr.startswith("Deployment failed!\n  - E005 SERVICE_START_FAILED: auth_service")


def test_a_custom_service_is_registered_and_deployed(town: ProjectFolder) -> None:
    """Both blocks together, and then a project that uses the type."""
    text = counterpart(7) + counterpart(8) + CUSTOM
    assert run(town, text).ok().stdout == "started\nrunning healthy\nstopped\n"


CUSTOM = """
import asyncio
from deploy_code import DeploymentOrchestrator
from deploy_code.config import ServiceConfig


class Told(MyCustomService):
    async def start(self):
        print("started", flush=True)

    async def stop(self):
        print("stopped", flush=True)


async def main():
    config = DeploymentOrchestrator("deploy-code.yaml").config
    config.services.clear()
    config.services["custom"] = ServiceConfig(service_type="custom")
    orchestrator = DeploymentOrchestrator(config)
    orchestrator.registry.register_type("custom", lambda config: Told(config))
    assert (await orchestrator.deploy()).success
    state = await orchestrator.registry.get_status("custom")
    print(state.status, state.health)
    assert (await orchestrator.stop(5)).success


asyncio.run(main())
"""


def test_a_custom_strategy_deploys_the_canaries_first(town: ProjectFolder) -> None:
    sleep = "await asyncio.sleep(300)"
    assert sleep in counterpart(9), "only its sleep is shortened"
    build(town, deployment={"strategy": "CanaryDeployment", "strategy_options": {"canary_percentage": 0.5}})
    text = counterpart(9).replace(sleep, "print('canaries are up', flush=True)") + STRATEGY
    assert run(town, text).ok().stdout == "canaries are up\nTrue 4\n"
    assert set(states(town).values()) == {"running"}


STRATEGY = """
from deploy_code import DeployCode

deployer = DeployCode()
deployer.register_strategy("CanaryDeployment", CanaryDeployment)
report = asyncio.run(deployer.deploy())
print(report.success, report.deployed_services)
"""
