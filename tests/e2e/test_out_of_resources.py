"""File descriptors run out: clients wait or are told, and all is well again after them."""

import resource
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.crowd import p99, relay_of, timed, wires, workers
from tests.e2e.expect import OVERLOADED, Expected, check_error, counted_once
from tests.e2e.place import Place, environment_of, process_of
from tests.harness import gateway_process, wait_for
from tests.wire import RawAnswer, Wire, chat_body, post

FEW = str(Path(__file__).parent / "few_descriptors.py")
CROWD = 60
#: Seconds in which health and refusals must be told, whatever goes on.
PROMPT = 0.05
LONG = Engine(tokens=150, token_seconds=0.02)
GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that may have 64 file descriptors, a third of which it needs for itself."""
    directory = tmp_path_factory.mktemp("poor")
    with Cluster() as cluster:
        environment = environment_of(cluster, directory)
        with gateway_process(directory, "-c", FEW, **environment) as gateway:
            here = Place(cluster, gateway.ready())
            relay_of(gateway)
            for name in ("llama", "other", "third"):
                here.deploy(name, engine=Engine(tokens=4, first_token_seconds=0.1))
            yield here


def ask_all(here: Place, requests: list[bytes]) -> list[RawAnswer]:
    """Ask all of it at once, each on a connection of its own, and read all answers."""
    answers: list[RawAnswer] = []

    def ask(request: bytes) -> None:
        answers.append(here.exchange(request))

    askers = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(answers) == len(requests)
    return answers


def check_all_told(answers: list[RawAnswer]) -> Counter[int]:
    """Each was answered, if only with a refusal that says when to come again."""
    for answer in answers:
        assert answer.complete
        assert not answer.reset
        if answer.status != 200:
            assert (answer.status, answer.value("x-gateway-error")) == (503, "gateway_overloaded")
            assert answer.value("x-should-retry") == "true"
            assert answer.value("retry-after") == "1"
    return Counter(answer.status for answer in answers)


def check_recovered(here: Place) -> None:
    """All models are served again, streams too, and nothing is held."""
    here.wait_until_idle()
    for name in ("llama", "other", "third"):
        for stream in (True, False):
            answer = here.exchange(post(chat_body(name, stream=stream)))
            assert (answer.status, answer.complete) == (200, True)
    assert here.gateway.get("/healthz").status_code == 200


@pytest.mark.fault(21)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_more_clients_than_descriptors_are_served_or_told_and_all_is_well_again_after_them(
    poor: Place, stream: bool
) -> None:
    models = ["llama", "other", "third"] * (CROWD // 3)
    answers = ask_all(poor, [post(chat_body(name, stream=stream)) for name in models])
    assert check_all_told(answers)[200] >= CROWD // 10
    check_recovered(poor)


def check_prompt(here: Place, probes: int) -> None:
    """Probes are answered in time, each on a connection of its own; at the third try at last.

    What came just before may keep a machine busy on which others are at work.
    """

    def probe() -> None:
        assert here.exchange(GET_HEALTH).status == 200

    for _ in range(3):
        times = [timed(probe) for _ in range(probes)]
        assert max(times) < 10 * PROMPT
        if p99(times) < PROMPT:
            return
    raise AssertionError(f"not one of three rounds was answered in time: {times}")


@pytest.mark.fault(21)
def test_beside_streams_that_hold_all_descriptors_health_is_told_and_requests_refused_at_once(
    poor: Place,
) -> None:
    process = process_of(poor.deploy("long", engine=LONG).pods[0])
    request = post(chat_body("long", stream=True))
    refusals = []
    with wires(poor.gateway.port, CROWD // 3) as clients:
        for client in clients:
            client.send(request)
        first = [(client, client.socket.recv(12)) for client in clients]
        running = [(client, seen) for client, seen in first if seen == b"HTTP/1.1 200"]
        assert 0 < len(running) < len(clients), "there are too many for it"
        check_all_told([client.read_to_the_end(seen) for client, seen in first if b"503" in seen])

        def ask() -> None:
            refusals.append(poor.exchange(request))

        check_prompt(poor, 100)
        assert p99([timed(ask) for _ in range(100)]) < PROMPT
        assert process.active == len(running), "all of them run on meanwhile"
        answers = [client.read_to_the_end(seen) for client, seen in running]
    assert check_all_told(refusals) == {503: 100}
    assert check_all_told(answers) == {200: len(running)}
    check_recovered(poor)


@pytest.mark.fault(21)
@pytest.mark.parametrize("part", ["nothing", "a head", "a body"])
def test_clients_that_hold_all_descriptors_with_half_a_request_keep_nobody_out(
    poor: Place, part: str
) -> None:
    raw = post(chat_body(user="u" * 1000))
    half = {"nothing": b"", "a head": raw[:40], "a body": raw[:-900]}[part]
    with wires(poor.gateway.port, CROWD // 3) as clients:
        for client in clients:
            client.send(half)
        check_prompt(poor, 100)
        wait_for(lambda: poor.exchange(post()).status == 200, "requests are served", 5.0)
        check_prompt(poor, 50)
    check_recovered(poor)


@pytest.mark.fault(21)
def test_streams_of_several_workers_are_whole_or_refused_although_one_relay_has_them_all(
    tmp_path: Path,
) -> None:
    """There are descriptors for each worker's streams, but in the relay not for those of all."""
    with Cluster() as cluster:
        environment = environment_of(cluster, tmp_path, workers="3") | {"DESCRIPTORS": "256"}
        cluster.model("llama", pods=2, engine=Engine(tokens=40, token_seconds=0.02))
        with gateway_process(tmp_path, "-c", FEW, **environment) as gateway:
            here = Place(cluster, gateway.ready())
            wait_for(lambda: len(workers(gateway)) == 3, "all workers are up")
            relay_of(gateway)
            answers = ask_all(here, [post(chat_body(stream=True))] * 150)
            assert check_all_told(answers)[200] > 15, "each worker may have so many"
            here.wait_until_idle()
            assert gateway.metric("gateway_errors_total", code="upstream_died") == 0


@contextmanager
def exhausted(process: int) -> Iterator[None]:
    """A block in which a process can open nothing more."""
    limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
    in_use = {int(path.name) for path in Path(f"/proc/{process}/fd").iterdir()}
    first_free = next(number for number in count() if number not in in_use)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (first_free, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)


@pytest.mark.fault(21)
def test_without_a_descriptor_a_request_is_told_so_and_a_new_client_waits_until_there_is_one(
    poor: Place,
) -> None:
    gateway = poor.gateway
    seen = process_of(poor.deploy("unconnected").pods[0]).requests
    complaint = "connections can't be accepted: [Errno 24] Too many open files"
    complaints = gateway.logs().count(complaint)
    (worker,) = workers(gateway)
    with Wire(gateway.port) as early:
        request = post(chat_body("unconnected"))
        early.send(request[:5])
        assert poor.exchange(GET_HEALTH).status == 200, "the worker has the earlier one too"
        with counted_once(gateway, "gateway_overloaded"), exhausted(worker):
            late = Wire(gateway.port).send(GET_HEALTH)
            wait_for(lambda: gateway.logs().count(complaint) > complaints, "it can't be accepted")
            answer = early.send(request[5:]).read_to_the_end()
        with late:
            assert late.read_to_the_end().status == 200
    says = "Too many open files"
    check_error(answer, Expected(503, "gateway_overloaded", OVERLOADED, says=says), retry_after=1)
    assert seen == []
    assert gateway.logs().count(complaint) - complaints < 20, "not once for every attempt"
    check_recovered(poor)
