"""Pulls images through the engine, with the user's own credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy_code.drivers.engine.credentials import registry_auth
from deploy_code.drivers.engine.errors import EngineError
from deploy_code.drivers.engine.reference import Reference, parse_reference
from deploy_code.errors import DriverError
from deploy_code.orchestrator.image_list import Image, image_of
from deploy_code.orchestrator.image_news import Layers, News

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient

# what engines and registries say, in lower case
_DISK_FULL = ("no space left on device",)
_NO_PLATFORM = ("no matching manifest", "no image found in manifest list", "no image found in image index")
_DENIED = ("unauthorized", "denied", "authentication required", "no basic auth credentials", "forbidden")
_MISSING = ("manifest unknown", "not found", "name unknown", "no such image", "does not exist")
_REMEDY_DENIED = "log in with `{runtime} login {registry}`, or correct the name"
_REMEDY_AWAY = "see that this machine reaches {registry}, then deploy again"


class PullError(DriverError):
    """``refused``: the registry answered, and said no; another try changes nothing."""

    default_code = "E003"

    def __init__(self, message: str, *, code: str = "E003", remedy: str, refused: bool) -> None:
        super().__init__(message, code=code, remedy=remedy, retryable=not refused)
        self.refused = refused


async def pull(client: EngineClient, text: str, *, runtime: str, environ: Mapping[str, str], news: News) -> Image:
    """Fetch the image that ``text`` names; it without a time-out, for as long as somebody waits.

    Raises PullError, and EngineGoneError where the engine itself is away.
    """
    reference = parse_reference(text)
    auth = await asyncio.to_thread(registry_auth, text, environ, runtime=runtime)
    headers = [("X-Registry-Auth", auth)] if auth else []
    query = {"fromImage": reference.name, "tag": reference.digest or reference.tag}  # Podman doubts short names
    news.progress("pulling")
    try:
        async with client.json_lines("POST", "/images/create", query=query, headers=headers) as lines:
            layers = Layers()
            async for line in lines:
                _raise_error(line)
                layers.see(line)
                news.progress("pulling", layers.done, layers.total)
        name = f"{reference.name}@{reference.digest}" if reference.digest else str(reference)
        inspected = await client.call("GET", f"/images/{name}/json")
    except EngineError as error:
        raise _explained(error.message, reference, runtime) from error
    news.ready("pulled")
    return image_of(inspected)


def _raise_error(line: Mapping[str, Any]) -> None:
    """Engines answer 200 before they know; what went wrong comes as a line."""
    if line.get("error"):
        raise EngineError(str(line["error"]), status=200)


def _explained(message: str, reference: Reference, runtime: str) -> PullError:
    said, name = message.lower(), reference.familiar
    registry = reference.domain

    def error(what: str, remedy: str, *, code: str = "E003", refused: bool = True) -> PullError:
        remedy = remedy.format(runtime=runtime, registry=registry)
        return PullError(f"image {name} {what}: {message}", code=code, remedy=remedy, refused=refused)

    if any(words in said for words in _DISK_FULL):
        return error("was not pulled, the disk is full", "free space where the engine keeps its images", code="E004")
    if any(words in said for words in _NO_PLATFORM):
        return error("is not made for this machine", "name an image that is built for its processor")
    if any(words in said for words in _DENIED):
        return error("may not be pulled, or is not there", _REMEDY_DENIED)
    if any(words in said for words in _MISSING):
        return error("is not there", "correct its name or tag, or push it to {registry}")
    return error("could not be pulled", _REMEDY_AWAY, refused=False)
