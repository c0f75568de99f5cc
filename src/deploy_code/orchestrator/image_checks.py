"""What is to be said of images before they run: of another kind of processor, data that goes with the container."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from deploy_code.errors import Problem
from deploy_code.model import ServiceSpec
from deploy_code.orchestrator.image_facts import ImageFacts, runs_on, uncovered

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}
_EMULATORS = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386"}
_BINFMT = "/proc/sys/fs/binfmt_misc"


async def architecture(client: EngineClient) -> str:
    """The engine's, as images say it; asked only where it is another machine than this one."""
    if client.endpoint.is_local:
        machine = os.uname().machine
        return _MACHINES.get(machine, machine)
    return (await client.info()).arch


def strangers(
    specs: Mapping[str, ServiceSpec], facts: Mapping[str, ImageFacts], arch: str, *, local: bool
) -> Iterator[Problem]:
    """Images that certainly do not run: made for another processor, and nothing here emulates it."""
    for name, said in facts.items():
        if local and not runs_on(said, arch) and not _is_emulated(said.arch):
            yield Problem(
                f"image {specs[name].content.image or 'built for it'} is made for {said.arch}, this machine is {arch}",
                code="E003",
                path=f"services.{name}.image",
                remedy=f"name one that is made for {arch}, or install an emulator (qemu-user-static)",
            )


def _is_emulated(arch: str) -> bool:
    return os.path.exists(os.path.join(_BINFMT, f"qemu-{_EMULATORS.get(arch, arch)}"))


def warnings(specs: Mapping[str, ServiceSpec], facts: Mapping[str, ImageFacts], arch: str) -> Iterator[str]:
    """One line each, without a head."""
    for name, said in facts.items():
        spec = specs[name]
        if not runs_on(said, arch):
            yield f"{name}: its image is made for {said.arch}, the engine runs {arch}: it will be slow, if it runs"
        for path in uncovered(spec.content, said):
            yield f"{name}: its image keeps data in {path}, and no volume is there: it goes with the container"
        if _is_unchecked(spec):
            yield f"{name}: neither the file nor its image says how to check it: it counts as well while it lives"


def _is_unchecked(spec: ServiceSpec) -> bool:
    content = spec.content
    has_port = any(port.protocol == "tcp" for port in content.ports)
    return spec.policy.health.is_silent and not has_port and not content.one_shot
