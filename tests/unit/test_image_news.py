"""How a pull or a build is told: seldom enough to be read, and nothing of what a build wrote is lost."""

from deploy_code.events import ImageProgress, ImageReady
from deploy_code.orchestrator.image_news import Layers, News


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_comes_fast_is_told_a_few_times_a_second():
    told, clock = [], Clock()
    news = News("app:1", told.append, clock)
    for tick in range(100):
        clock.now = tick / 100
        news.progress("pulling", tick, 100)
    assert len(told) == 5
    assert [event.done for event in told] == sorted(event.done for event in told)


def test_no_line_of_a_build_is_lost():
    told, clock = [], Clock()
    news = News("app:1", told.append, clock)
    for tick in range(100):
        clock.now = tick / 100
        news.progress("building", output=f"line {tick}")
    clock.now = 2.0
    news.ready("built")
    lines = [line for event in told if isinstance(event, ImageProgress) for line in event.output]
    assert lines == [f"line {tick}" for tick in range(100)]
    assert told[-1] == ImageReady(image="app:1", how="built", duration=2.0, at=told[-1].at)


def test_layers_add_up_and_what_is_here_counts_as_whole():
    layers = Layers()
    assert (layers.done, layers.total) == (0, 0)
    layers.see({"status": "Pulling fs layer", "id": "a", "progressDetail": {}})
    layers.see({"status": "Downloading", "id": "a", "progressDetail": {"current": 10, "total": 100}})
    layers.see({"status": "Downloading", "id": "b", "progressDetail": {"current": 5, "total": 50}})
    assert (layers.done, layers.total) == (15, 150)
    layers.see({"status": "Download complete", "id": "a"})
    layers.see({"status": "Already exists", "id": "c"})
    assert (layers.done, layers.total) == (105, 150)
