"""The list of an engine's images: what is found in it, and what becomes of it while images go."""

import pytest

from deploy_code.drivers.engine.errors import EngineError
from deploy_code.orchestrator.image_list import ImageList, image_of, list_images

BUILD = "d" * 64
VANISHED = 'checking if image "f5da" is dangling: locating image with ID "f5da": image not known'


class Client:
    """Answers ``GET /images/json`` with each of ``answers`` in turn."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def call(self, method, path):
        assert (method, path) == ("GET", "/images/json")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def image(number, *tags, **labels):
    return {"Id": f"sha256:{number:064}", "RepoTags": list(tags), "Labels": labels}


def built(number, *tags):
    return image_of({**image(number, *tags), "Config": {"Labels": {"deploy-code.build": BUILD}}})


async def test_a_list_that_an_image_vanished_from_is_asked_for_again():
    client = Client(EngineError(VANISHED, status=500), EngineError(VANISHED, status=500), [image(1, "app:1")])
    assert (await list_images(client)).find("app:1").id.endswith("1")


async def test_it_is_not_asked_for_without_end():
    client = Client(*[EngineError(VANISHED, status=500)] * 20)
    with pytest.raises(EngineError, match="not known"):
        await list_images(client)
    assert client.answers


async def test_any_other_refusal_is_told_at_once():
    client = Client(EngineError("no space left on device", status=500), [])
    with pytest.raises(EngineError, match="no space left"):
        await list_images(client)
    assert client.answers == [[]]


def test_what_a_build_gave_has_its_name_too():
    """What is made from it inherits its labels, whatever it is called."""
    ours = built(1, f"shop-api:{BUILD[:12]}", "team/api:3")
    for others in ([], [built(2, "mine:1")], [built(2)]):
        assert ImageList([ours, *others]).built(BUILD) == ours
        assert ImageList([*others, ours]).built(BUILD) == ours
        assert ImageList(others).built(BUILD) is None
