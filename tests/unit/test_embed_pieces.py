"""The small parts of the embedding API: looks as attributes, streams of events, names that are taken."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import threading
from copy import deepcopy

import pytest

from deploy_code.embed.names import Registered
from deploy_code.embed.stream import EventStream, Hub
from deploy_code.embed.view import View
from deploy_code.errors import ServiceError
from deploy_code.events import Event, EventsLost, InstanceChanged, WarningRaised

STATUS = {
    "overall_health": "healthy",
    "notes": ["careful"],
    "services": {"web": {"status": "running", "instances": [{"pid": 7, "ports": {"8080": 30000}, "probe": None}]}},
}


def test_keys_are_attributes_all_the_way_down() -> None:
    view = View(STATUS)
    assert view.overall_health == "healthy" and view.notes == ("careful",)
    [instance] = view.services["web"].instances
    assert (instance.pid, instance.ports["8080"], instance.probe) == (7, 30000, None)
    assert list(view.services) == ["web"]
    assert "overall_health" in dir(view) and "overall_health='healthy'" in repr(view)


def test_a_look_is_plain_data_again_and_changes_nothing() -> None:
    view = View(STATUS)
    data = view.to_dict()
    assert data == STATUS and json.loads(json.dumps(data)) == STATUS
    data["services"]["web"]["status"] = "failed"
    assert view.services["web"].status == "running"
    with pytest.raises(AttributeError, match="cannot be set"):
        view.overall_health = "unhealthy"
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del view.overall_health
    with pytest.raises(TypeError):
        view.services["web"] = None
    with pytest.raises(AttributeError, match="there is no 'overal_health' here, but overall_health, notes, services"):
        _ = view.overal_health


def test_looks_are_compared_copied_and_pickled_by_value() -> None:
    view = View(STATUS)
    assert view == View(STATUS) and view != View({}) and view != STATUS
    assert deepcopy(view) == view and pickle.loads(pickle.dumps(view)) == view
    with pytest.raises(TypeError, match="unhashable"):
        hash(view)


# --------------------------------------------------------------------------- events


def news(number: int) -> Event:
    return WarningRaised(message=str(number))


async def all_of(stream: EventStream) -> list[Event]:
    return [event async for event in stream]


async def test_every_reader_gets_every_event_in_order_and_ends_with_the_hub() -> None:
    hub = Hub()
    readers = [hub.open(10), hub.open(10)]
    tasks = [asyncio.create_task(all_of(each)) for each in readers]
    events = [news(1), news(2)]
    hub.publish(events[0])
    await asyncio.sleep(0)
    hub.publish(events[1])
    hub.close()
    assert await asyncio.gather(*tasks) == [events, events]
    hub.publish(news(3))
    assert await all_of(readers[0]) == []


async def test_what_a_slow_reader_could_not_keep_is_told_in_its_place() -> None:
    stream = EventStream(limit=2)
    for number in range(5):
        stream.put(news(number))
    assert [(await anext(stream)).text for _ in range(2)] == ["0", "1"]
    stream.put(news(5))
    lost, after = await anext(stream), await anext(stream)
    assert isinstance(lost, EventsLost) and lost.count == 3 and "3 events were not kept" in lost.text
    assert after.text == "5"
    for number in range(3):
        stream.put(news(number))
    stream.close()
    assert [each.name for each in await all_of(stream)] == ["WarningRaised", "WarningRaised", "EventsLost"]


async def test_a_reader_that_nobody_holds_is_forgotten() -> None:
    hub = Hub()
    hub.open(10)
    gc.collect()
    assert not hub._streams


async def test_a_reader_that_was_closed_hears_no_more() -> None:
    hub = Hub()
    stream = hub.open(10)
    hub.publish(news(1))
    await stream.aclose()
    hub.publish(news(2))
    assert [each.text for each in await all_of(stream)] == ["1"]


async def test_a_reader_that_was_cancelled_can_be_read_on() -> None:
    stream = EventStream()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(stream)
    stream.put(news(1))
    assert (await anext(stream)).text == "1"


async def test_two_tasks_cannot_share_one_reader() -> None:
    stream = EventStream()
    first = asyncio.create_task(all_of(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=r"call events\(\) once for each reader"):
        await anext(stream)
    stream.put(news(1))
    stream.close()
    assert [each.text for each in await first] == ["1"]


async def test_what_was_there_before_an_operation_began_is_no_news() -> None:
    hub = Hub()
    stream = hub.open(10)
    hub.publish(InstanceChanged(instance="web r1 #0", phase="ready"))
    hub.publish(InstanceChanged(deployment=4, instance="web r1 #0", phase="ready"))
    hub.close()
    assert [each.deployment for each in await all_of(stream)] == [4]


def test_a_reader_may_live_in_another_thread() -> None:
    stream, heard = EventStream(), list[str]()

    async def read() -> None:
        heard.extend([event.text async for event in stream])

    reader = threading.Thread(target=lambda: asyncio.run(read()))
    reader.start()
    for number in range(100):
        stream.put(news(number))
    stream.close()
    reader.join(10)
    assert heard == [str(number) for number in range(100)]


def test_a_reader_whose_loop_has_ended_harms_nobody() -> None:
    stream = EventStream()

    async def give_up() -> None:
        task = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(give_up())
    stream.put(news(1))


# --------------------------------------------------------------------------- names


def test_a_name_is_given_once_to_something_that_can_be_called() -> None:
    names = Registered("strategy", ("RollingUpdate",))
    names.add("Mine", dict)
    assert names.factories == {"Mine": dict}
    with pytest.raises(ServiceError, match=r'^S002 .*strategy "Mine" is registered already'):
        names.add("Mine", list)
    with pytest.raises(ServiceError, match=r'^S003 .*strategy "rolling-update" is built in'):
        names.add("rolling-update", list)
    with pytest.raises(ServiceError, match=r"^S003 .*cannot be called: it is of type str"):
        names.add("Other", "package.module:Class")  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match=r"^S003 .*needs a name"):
        names.add(3, list)  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match=r"^S003 .*needs a name"):
        names.add(" ", list)
