"""Does what is asked for fit beside what is promised already, and if not: what is short, by how much, who holds it.

Only growth is refused. What somebody holds is never too much, however small the machine has become or whatever was
forced before; so shrinking, stopping and undoing what failed always fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deploy_code.errors import PreflightError, Problem
from deploy_code.model import Resources
from deploy_code.resources.amounts import NOTHING, most, total
from deploy_code.resources.capacity import Capacity
from deploy_code.resources.ledger import Promise

_SLACK = 1e-6  # of a core: sums of tenths are not exact
_HOLDERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who asks for what. ``holds`` is what each service has already, ``needs`` what it is to have, at its peak.

    ``others``: every promise that is not replaced by this one. ``overcommit``: factors on cpu, memory, storage.
    ``settled``: what it needs when all is over. ``written_gb``: how much of its storage a promise has filled; asked
    only when disk would be short without it.
    """

    others: Sequence[Promise]
    needs: Mapping[str, Resources]
    holds: Mapping[str, Resources] = field(default_factory=dict)
    settled: Mapping[str, Resources] = field(default_factory=dict)
    overcommit: Mapping[str, float] = field(default_factory=dict)
    label: str = ""  # the project that asks
    owner: str = ""  # and its id
    written_gb: Callable[[], int] = lambda: 0

    def peak(self, service: str) -> Resources:
        return most(self.needs.get(service, NOTHING), self.holds.get(service, NOTHING))

    @property
    def services(self) -> list[str]:
        return sorted({*self.needs, *self.holds})


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of resource, and how it is spoken of."""

    name: str
    attribute: str
    one: str
    many: str

    def of(self, amount: Resources) -> float:
        value: float = getattr(amount, self.attribute)
        return value

    def held_by(self, promise: Promise) -> float:
        """A GPU that was promised by force is not held: each has one holder at most."""
        return len(promise.gpus) if self.attribute == "gpu_count" else self.of(promise.resources)

    def say(self, value: float) -> str:
        return f"{value:.10g} {self.one if value == 1 else self.many}"


KINDS = (
    _Kind("cpu", "cpu_cores", "core", "cores"),
    _Kind("memory", "memory_mb", "MB", "MB"),
    _Kind("storage", "storage_gb", "GB", "GB"),
    _Kind("gpu", "gpu_count", "GPU", "GPUs"),
)


def shortages(capacity: Capacity, request: Request) -> list[Problem]:
    """One problem (E004) for each kind of which there is not enough; none when all fits."""
    needed = total(request.peak(name) for name in request.services)
    held = total(request.holds.values())
    grown = [kind for kind in KINDS if kind.of(needed) > kind.of(held) + _SLACK]
    return [problem for kind in grown for problem in _shortage(kind, capacity, request)]


def _shortage(kind: _Kind, capacity: Capacity, request: Request) -> Iterator[Problem]:
    needed = sum(kind.of(request.peak(name)) for name in request.services)
    taken = sum(map(kind.held_by, request.others))
    there = _there(kind, capacity)
    factor = request.overcommit.get(kind.name, 1.0)
    if kind.name == "storage" and needed + taken > there * factor + _SLACK:
        there += request.written_gb()
    short = needed + taken - there * factor
    if short > _SLACK:
        yield Problem(_story(kind, request, there, factor, short), code="E004", remedy=_hint(kind, capacity, request))


def _there(kind: _Kind, capacity: Capacity) -> float:
    return {
        "cpu": capacity.cpu_cores,
        "memory": capacity.memory_mb,
        "storage": capacity.storage_gb,
        "gpu": len(capacity.gpus),
    }[kind.name]


def _story(kind: _Kind, request: Request, there: float, factor: float, short: float) -> str:
    held = sum(map(kind.of, request.holds.values()))
    growth = sum(kind.of(request.peak(name)) for name in request.services) - held
    free = max(0.0, growth - short)
    need = f"{kind.say(_round(growth))} {'more ' if held else ''}{'is' if growth == 1 else 'are'} needed"
    whole = kind.say(_round(there * factor)) + (f" (overcommit {factor:g})" if factor != 1 else "")
    rest = f"{_round(free):.10g} of {whole} are free ({kind.say(_round(short))} short)"
    return f"{kind.name}: {need}{_askers(kind, request)}, {rest}{_holders(kind, request)}"


def _askers(kind: _Kind, request: Request) -> str:
    """Whose growth it is, where several services could be meant."""
    grown = {name: kind.of(request.peak(name)) - kind.of(request.holds.get(name, NOTHING)) for name in request.services}
    listed = sorted(
        ((each, name) for name, each in grown.items() if each > _SLACK), key=lambda item: (-item[0], item[1])
    )
    if not listed or not request.label:
        return ""
    names = [f"{name} {_round(each):.10g}" for each, name in listed[:_HOLDERS]]
    return f" ({', '.join(names)}{_rest(len(listed))})"


def _holders(kind: _Kind, request: Request) -> str:
    names = _names(request)
    holding = [(kind.held_by(each), f"{names[each.owner.id]}/{each.service}") for each in request.others]
    holding += [(kind.of(each), f"{request.label}/{name}") for name, each in request.holds.items()]
    listed = sorted((each for each in holding if each[0] > 0), key=lambda item: (-item[0], item[1]))
    if not listed:
        return "; nobody holds any"
    (first, label), *others = listed[:_HOLDERS]
    said = [f"{label} holds {kind.say(_round(first))}", *(f"{name} {kind.say(_round(each))}" for each, name in others)]
    return f"; {', '.join(said)}{_rest(len(listed))}"


def _rest(count: int) -> str:
    return f" and {count - _HOLDERS} more" if count > _HOLDERS else ""


def _round(value: float) -> float:
    return round(value, 3)


def _names(request: Request) -> dict[str, str]:
    """What each owner is called, by id: its folder where two have the same name."""
    owners = {each.owner.id: each.owner.name for each in request.others}
    counts = Counter([*owners.values(), *([request.label] if request.owner not in owners else [])])
    return {each: name if counts[name] == 1 or each == request.owner else each for each, name in owners.items()}


def _hint(kind: _Kind, capacity: Capacity, request: Request) -> str:
    from deploy_code.resources.gpus import is_installed

    if kind.name == "gpu" and not capacity.gpus and not is_installed():
        return "to see GPUs: pip install 'deploy-code[gpu]'"
    if names := sorted(_side_by_side(kind, request)):
        return f"old and new of {', '.join(names[:_HOLDERS])} run side by side for a while; stop-first needs less"
    return ""


def _side_by_side(kind: _Kind, request: Request) -> Iterator[str]:
    """Services that need more on the way than before and after."""
    for name, settled in request.settled.items():
        held = kind.of(request.holds.get(name, NOTHING))
        if held and kind.of(request.peak(name)) > max(held, kind.of(settled)) + _SLACK:
            yield name


def insufficient(problems: Sequence[Problem], *, remedy: str) -> PreflightError:
    """E004 with everything that is short."""
    return PreflightError("this machine has not enough left; nothing was changed", problems, remedy=remedy)
