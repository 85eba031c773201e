import contextlib
import signal
from collections.abc import Iterator

import gevent
import pytest
from conftest import until
from redis_server import RedisServer, needs_redis

from greenchat.backplane.pipeline import Command, Pipeline
from greenchat.backplane.scripts import SEND
from greenchat.backplane.store import Call, Store
from greenchat.errors import Code, LogError, Refused

pytestmark = needs_redis


@pytest.fixture
def pipeline(redis: RedisServer) -> Iterator[Pipeline]:
    with contextlib.closing(Store(redis.url)) as store, contextlib.closing(Pipeline(store)) as made:
        yield made


def told(pipeline: Pipeline) -> list[bytes]:
    texts, after = list[bytes](), "0"
    while answer := pipeline.store.range("inbox", after):
        after = answer[-1][0]
        texts += [fields[b"m"] for _, fields in answer]
    return texts


def send(text: str) -> Call:
    return SEND, ["inbox"], [text, 1000, 60]


def test_commands_are_run_in_their_order_many_at_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, run = list[int](), pipeline.store.run

    def count(calls: list[Call]) -> list[object]:
        runs.append(len(calls))
        return run(calls)

    monkeypatch.setattr(pipeline.store, "run", count)
    for number in range(300):
        pipeline.run(*send(str(number)))
    assert pipeline.ask(*send("last")) == 1
    assert told(pipeline) == [*(b"%d" % number for number in range(300)), b"last"]
    assert len(runs) < 10


def test_command_whose_result_is_not_accepted_is_run_again_before_those_after_it(pipeline: Pipeline) -> None:
    results = list[object]()

    def on_result(result: object) -> None:
        results.append(result)
        if len(results) < 3:
            raise LogError(Code.UNAVAILABLE, "not yet")

    pipeline.submit(Command(lambda: send(str(len(results))), on_result))
    until(lambda: len(results) == 3)
    pipeline.ask(*send("next"))
    assert told(pipeline) == [b"0", b"1", b"2", b"next"]


def test_what_need_not_be_run_fails_with_all_that_waits_and_redis_is_not_taken_for_back() -> None:
    with (
        RedisServer() as mortal,
        contextlib.closing(Store(mortal.url)) as store,
        contextlib.closing(Pipeline(store)) as pipeline,
    ):
        told, failures = list[bool](), list[Refused]()
        pipeline.queue.watch(told.append)
        mortal.signal(signal.SIGSTOP)
        for number in range(3):
            pipeline.submit(Command(lambda: send("x"), print, failures.append))
            gevent.sleep(0.01 * number)  # the first is on its way, the others wait behind it
        until(lambda: len(failures) == 3)
        gevent.sleep(0.3)
        assert told == [False]
        mortal.signal(signal.SIGCONT)
        until(lambda: told == [False, True])


def test_answer_that_is_none_is_asked_for_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    run, garbled = pipeline.store._pipeline, [True]

    def garble(calls: list[Call]) -> list[object]:
        results = run(calls)
        if garbled:
            garbled.pop()
            raise ValueError("as the library says of an answer that it makes nothing of")
        return results

    assert pipeline.ask(*send("0")) == 1  # now Redis has the script, wherever this test comes in their order
    monkeypatch.setattr(pipeline.store, "_pipeline", garble)
    pipeline.run(*send("1"))
    pipeline.queue.settle()
    assert told(pipeline) == [b"0", b"1", b"1"]  # it was run, too, the first time


def test_mistake_with_one_result_is_not_the_end_of_all(pipeline: Pipeline) -> None:
    def on_result(_result: object) -> None:
        raise RuntimeError("a mistake, printed on purpose")

    pipeline.submit(Command(lambda: send("1"), on_result))
    assert pipeline.ask(*send("2")) == 1


def test_what_is_asked_fails_while_redis_is_away_and_what_has_to_be_run_is_run_at_last() -> None:
    with (
        RedisServer() as mortal,
        contextlib.closing(Store(mortal.url)) as store,
        contextlib.closing(Pipeline(store)) as pipeline,
    ):
        mortal.kill()
        pipeline.run(*send("1"))
        with pytest.raises(Refused) as refused:
            pipeline.ask(*send("never"))
        assert refused.value.code is Code.UNAVAILABLE
        assert not pipeline.queue.works
        mortal.start()
        pipeline.queue.settle()
        assert told(pipeline) == [b"1"]
