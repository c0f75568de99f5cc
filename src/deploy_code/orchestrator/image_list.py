"""What images one engine has: one call, asked about as often as needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_code.drivers.engine.errors import EngineError
from deploy_code.drivers.engine.order import BUILD
from deploy_code.drivers.engine.reference import Reference, is_image_id, parse_reference
from deploy_code.errors import ServiceError

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient

_VANISHED, _LISTED_AGAIN = "image not known", 3
LOCALHOST = "localhost"  # the registry that Podman gives to images which were built or loaded under a short name


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of an engine. ``digests``: repository@sha256:…, where it was pulled from or pushed to."""

    id: str  # sha256:…
    tags: tuple[str, ...] = ()  # full names: docker.io/library/redis:7
    names: tuple[str, ...] = ()  # the same as the engine calls them
    digests: tuple[str, ...] = ()
    labels: Mapping[str, str]
    size: int = 0  # bytes

    def digest_in(self, reference: Reference) -> str:
        """By what this very image can be pulled again from where ``reference`` points; "" where that is not known."""
        for text in self.digests:
            found = _reference(text)
            if found is not None and found.name == reference.name:
                return f"{found.name}@{found.digest}"
        return ""


class ImageList:
    """All images of one engine."""

    def __init__(self, images: list[Image]) -> None:
        self.images = images
        self._by_id = {image.id: image for image in images}
        self._by_tag = {tag: image for image in images for tag in image.tags}
        self._by_digest = {_digest_name(text): image for image in images for text in image.digests}
        self._by_build = {image.labels[BUILD]: image for image in images if _is_built(image)}

    def with_id(self, image_id: str) -> Image | None:
        return self._by_id.get(image_id if ":" in image_id else f"sha256:{image_id}")

    def built(self, digest: str) -> Image | None:
        """The image that a build of this digest gave."""
        return self._by_build.get(digest)

    def find(self, text: str) -> Image | None:
        """What ``text`` names here: an ID, a digest, or a tag; a short name may also be one of Podman's own."""
        if is_image_id(text):
            return self.with_id(text)
        reference = parse_reference(text)
        if reference.digest:
            return self._by_digest.get(f"{reference.name}@{reference.digest}")
        found = self._by_tag.get(str(reference))
        if found is None and not text.startswith(reference.domain):
            found = self._by_tag.get(f"{LOCALHOST}/{reference.familiar}")
        return found


def is_build_tag(tag: str, digest: str) -> bool:
    """Is it the name that a build of this digest gives (``order.image_name``)? What files and people give is theirs."""
    return tag.rpartition(":")[2] == digest[:12]


def _is_built(image: Image) -> bool:
    """By its name too: whatever is made from a built image inherits its labels."""
    digest = image.labels.get(BUILD, "")
    return bool(digest) and any(is_build_tag(tag, digest) for tag in image.tags)


async def list_images(client: EngineClient) -> ImageList:
    """Raises as ``EngineClient.call``."""
    again = _LISTED_AGAIN
    while True:
        try:
            return ImageList([_image(data) for data in await client.call("GET", "/images/json")])
        except EngineError as error:  # Podman gives up when somebody removes an image while it makes the list
            if not again or _VANISHED not in error.message:
                raise
            again -= 1


def image_of(inspected: Mapping[str, Any]) -> Image:
    """From the answer to ``GET /images/{name}/json``."""
    config = inspected.get("Config") or {}
    return _image({**inspected, "Labels": config.get("Labels")})


def _image(data: Mapping[str, Any]) -> Image:
    return Image(
        id=_full_id(str(data["Id"])),
        tags=tuple(_tags(data.get("RepoTags"))),
        names=tuple(name for name in data.get("RepoTags") or () if not name.startswith("<none>")),
        digests=tuple(text for text in data.get("RepoDigests") or () if not text.startswith("<none>")),
        labels=data.get("Labels") or {},
        size=int(data.get("Size") or 0),
    )


def _full_id(text: str) -> str:
    return text if text.startswith("sha256:") else f"sha256:{text}"


def _tags(names: object) -> Iterator[str]:
    for name in names if isinstance(names, list) else ():
        found = _reference(name)
        if found is not None:
            yield str(found)


def _digest_name(text: str) -> str:
    found = _reference(text)
    return f"{found.name}@{found.digest}" if found is not None else text


def _reference(text: str) -> Reference | None:
    """None for what an engine writes in place of a name: ``<none>:<none>``."""
    try:
        return parse_reference(text)
    except ServiceError:
        return None
