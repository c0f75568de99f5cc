"""What an image says of itself, and what a service takes from it where its file is silent. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deploy_code.model import Content, HealthCheck, Policy, Port, ServiceSpec

DEFAULT_SIGNAL = "SIGTERM"
NANOSECONDS = 1_000_000_000
_IMAGE_CHECK = HealthCheck(interval_seconds=30.0, timeout_seconds=30.0, retries=3, start_period_seconds=0.0)  # Docker's
_FILE_CHECK = HealthCheck()
_OURS = re.compile(r"\$\{(PORT(?:_\d+)?|DEPLOY_CODE_\w+)\}")
_RUNS_TOO = {"amd64": frozenset({"386"}), "arm64": frozenset({"arm"})}
"""What the processors of one architecture run beside their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """The part of an image's config that matters to us. ``health``: a check, or None where the image has none."""

    arch: str = ""  # "amd64"
    os: str = ""
    ports: tuple[Port, ...] = ()  # EXPOSE
    volumes: tuple[str, ...] = ()  # VOLUME, absolute
    stop_signal: str = ""  # SIGINT; "" where the image says none
    health: HealthCheck | None = None


def facts_of(inspected: Mapping[str, Any]) -> ImageFacts:
    """From the answer to ``GET /images/{id}/json``; of Podman to its own ``/libpod/images/{id}/json``."""
    config = _mapping(inspected.get("Config"))
    check = config.get("Healthcheck") or inspected.get("Healthcheck")  # Docker's place, Podman's
    return ImageFacts(
        arch=str(inspected.get("Architecture") or ""),
        os=str(inspected.get("Os") or ""),
        ports=exposed(config.get("ExposedPorts")),
        volumes=tuple(sorted(_mapping(config.get("Volumes")))),
        stop_signal=signal_name(str(config.get("StopSignal") or "")),
        health=health_of(_mapping(check), tuple(config.get("Shell") or ("/bin/sh", "-c"))),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# ------------------------------------------------------------------------------------------------------ what it says


def exposed(value: object) -> tuple[Port, ...]:
    """``{"8080/tcp": {}, "9000-9002/udp": {}}`` as ports: TCP before UDP, then by number."""
    ports = {port for text in _mapping(value) for port in _ports(text)}
    return tuple(
        Port(container_port=number, protocol=protocol)
        for protocol, number in sorted(ports, key=lambda port: (port[0] != "tcp", port))
    )


def _ports(text: str) -> Iterator[tuple[str, int]]:
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    if protocol in ("", "tcp", "udp") and first.isdecimal() and (last or first).isdecimal():
        for number in range(int(first), int(last or first) + 1):
            if 0 < number < 65536:
                yield protocol or "tcp", number


def signal_name(text: str) -> str:
    """``SIGINT`` for ``SIGINT``, ``INT``, ``int`` and ``2``; what is no such signal stays (``SIGRTMIN+3``)."""
    name = text.strip().upper()
    if name.isdecimal():
        try:
            return signal.Signals(int(name)).name
        except ValueError:
            return name
    return name if not name or name.startswith("SIG") else f"SIG{name}"


def health_of(check: Mapping[str, Any], shell: tuple[str, ...]) -> HealthCheck | None:
    """The image's HEALTHCHECK as a check of ours; None where it has none or says NONE."""
    test = tuple(map(str, check.get("Test") or ()))
    command = _command(test, shell)
    if not command:
        return None
    return HealthCheck(
        command=tuple(map(_shells_own, command)),
        interval_seconds=_seconds(check, "Interval", _IMAGE_CHECK.interval_seconds),
        timeout_seconds=_seconds(check, "Timeout", _IMAGE_CHECK.timeout_seconds),
        retries=int(check.get("Retries") or _IMAGE_CHECK.retries),
        start_period_seconds=_seconds(check, "StartPeriod", _IMAGE_CHECK.start_period_seconds),
    )


def _command(test: tuple[str, ...], shell: tuple[str, ...]) -> tuple[str, ...]:
    kind, words = test[:1], test[1:]
    if kind == ("CMD",):
        return words
    return (*shell, *words[:1]) if kind == ("CMD-SHELL",) and words else ()


def _shells_own(word: str) -> str:
    """``${PORT}`` in an image is for its shell: written so that we do not take it for ours."""
    return _OURS.sub(r"${\1:-}", word)


def _seconds(check: Mapping[str, Any], key: str, default: float) -> float:
    return float(check.get(key) or 0) / NANOSECONDS or default


# ------------------------------------------------------------------------------------------------- what a service takes


def completed(spec: ServiceSpec, facts: ImageFacts) -> ServiceSpec:
    """``spec`` with the image's ports, check and stop signal where the file says nothing of them."""
    content = spec.content if spec.content.ports else replace(spec.content, ports=facts.ports)
    return replace(spec, content=content, policy=_policy(spec.policy, facts))


def without_image(spec: ServiceSpec) -> ServiceSpec:
    """What can be said as long as the image is not here."""
    return spec if spec.policy.stop_signal else completed(spec, ImageFacts())


def _policy(policy: Policy, facts: ImageFacts) -> Policy:
    signal_ = policy.stop_signal or facts.stop_signal or DEFAULT_SIGNAL
    return replace(policy, stop_signal=signal_, health=_health(policy.health, facts.health))


def _health(written: HealthCheck, image: HealthCheck | None) -> HealthCheck:
    """The image's check; numbers that the file changed hold."""
    if image is None or not written.is_silent:
        return written
    changed = {
        name: getattr(written, name) for name in _NUMBERS if getattr(written, name) != getattr(_FILE_CHECK, name)
    }
    return replace(image, **changed)


_NUMBERS = ("interval_seconds", "timeout_seconds", "retries", "start_period_seconds")


def uncovered(content: Content, facts: ImageFacts) -> list[str]:
    """Folders in which the image keeps data, and of which no volume of the service is in charge."""
    covered = [volume.mount_path.rstrip("/") or "/" for volume in content.volumes]
    return [path for path in facts.volumes if not any(_is_below(path.rstrip("/"), folder) for folder in covered)]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def runs_on(facts: ImageFacts, arch: str) -> bool:
    """Does a machine of this architecture run it without an emulator? What is not known is taken to run."""
    return not facts.arch or not arch or facts.arch == arch or facts.arch in _RUNS_TOO.get(arch, ())
