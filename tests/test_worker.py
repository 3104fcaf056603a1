"""What the worker assumes of gunicorn's private parts. Fails first when gunicorn is changed."""

import inspect
import re
import selectors
import socket
import time
from contextlib import ExitStack
from typing import Any

import gunicorn
import pytest
from gunicorn import arbiter, sock, util
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.http import body, message, unreader, wsgi
from gunicorn.workers import base, gthread
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

from proxy.answering import AnswerHead, create, end_of
from proxy.arrival import Arrival, _Memory
from proxy.deadlines import Deadlines
from proxy.epoll import Epoll
from proxy.secure import ClientConnection
from proxy.sending import Collected, End
from proxy.tasks import Soon
from proxy.threads import Threads
from proxy.worker import _MOST_ACCEPTED, GatewayWorker
from tests.harness import ROOT
from tests.test_arrival import ADDRESS, CONFIG
from tests.wire import post

WRITTEN_FOR = "27.0.1"


def source(of: Any) -> str:
    return inspect.getsource(of)


def source_of_configuration(begin: str, end: str) -> str:
    """What stands between two marks of the gateway's own configuration."""
    return (ROOT / "gunicorn.conf.py").read_text().partition(begin)[2].partition(end)[0]


def test_gunicorn_is_the_version_the_worker_was_written_for() -> None:
    assert gunicorn.__version__ == WRITTEN_FOR, (
        f"the worker builds on private parts of gunicorn {WRITTEN_FOR}, this is "
        f"{gunicorn.__version__}: read its gthread worker, http/message.py and http/wsgi.py again"
    )


OVERRIDDEN = [
    (GatewayWorker, ThreadWorker, name)
    for name in (
        "run",
        "accept",
        "handle_request",
        "handle_error",
        "murder_pending",
        "get_thread_pool",
        "notify",
        "set_accept_enabled",
        "wait_for_and_dispatch_events",
        "_cap_keepalive",
    )
] + [
    (ClientConnection, TConn, "close"),
    (AnswerHead, wsgi.Response, "default_headers"),
    (AnswerHead, wsgi.Response, "process_headers"),
    (_Memory, unreader.Unreader, "chunk"),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "name"), OVERRIDDEN, ids=[name for _, _, name in OVERRIDDEN]
)
def test_every_method_that_is_overridden_is_there_with_the_same_parameters(
    ours: type, theirs: type, name: str
) -> None:
    assert name in vars(ours)
    expected = inspect.signature(getattr(theirs, name)).parameters
    found = inspect.signature(getattr(ours, name)).parameters
    assert [p.name for p in found.values()] == [
        {"fname": "frame"}.get(p.name, p.name) for p in expected.values()
    ]


def test_nothing_of_gunicorns_is_overridden_by_accident() -> None:
    names = {
        name
        for name, value in vars(GatewayWorker).items()
        if inspect.isfunction(value) and hasattr(ThreadWorker, name)
    }
    assert names == {name for ours, _, name in OVERRIDDEN if ours is GatewayWorker}


def test_no_attribute_of_gunicorns_is_replaced_by_accident() -> None:
    theirs = source(ThreadWorker) + source(ThreadWorker.__mro__[1])
    for name in ("clock", "deadlines", "keepalive", "send_timeout", "unfinished", "_clients",
                 "_lingering", "_answering", "_gateway", "_threads", "_accepts_again"):  # fmt: skip
        assert f"self.{name} " not in theirs


def test_the_loop_comes_back_for_housekeeping_however_much_there_is_to_do() -> None:
    worker: Any = GatewayWorker.__new__(GatewayWorker)
    worker.poller = Epoll()
    worker.clock = time.monotonic
    worker.deadlines, worker.soon = Deadlines(time.monotonic), Soon(time.monotonic)
    worker.settle = lambda: None
    worker.alive = worker._accepting = True
    worker.nr_conns, worker._usual, worker._accepts_again = 0, 1, 0.0
    turns: list[object] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")  # which nobody reads: it is ready in each turn
        worker.poller.register(ours, selectors.EVENT_READ, turns.append)
        started = time.monotonic()
        worker.wait_for_and_dispatch_events(1.0)
        assert time.monotonic() - started < 1.0
        assert len(turns) > 1
        for name, value in (("alive", False), ("_accepting", False), ("nr_conns", 2)):
            turns.clear()
            before = getattr(worker, name)
            setattr(worker, name, value)
            worker._relieve = lambda: 0.0
            worker.wait_for_and_dispatch_events(1.0)
            setattr(worker, name, before)
            assert len(turns) == 1, f"{name} is looked at after each turn"
    worker.poller.close()


class Accepting(GatewayWorker):
    """A worker that has `most` connections at most, and only counts them."""

    def __init__(self, listener: socket.socket, most: int) -> None:
        self.poller = Epoll()
        self.clock = time.monotonic
        self.deadlines, self.soon = Deadlines(time.monotonic), Soon(time.monotonic)
        self.settle = lambda: None
        self.alive, self._accepting, self._accepts_again = True, False, 0.0
        self.nr_conns, self.worker_connections, self._usual = 0, most, 0
        self.sockets = [listener]
        self.set_accept_enabled(True)

    def _relieve(self) -> float:
        return 0.0

    def _take(self, listener: socket.socket) -> bool:
        listener.accept()[0].close()
        self.nr_conns += 1
        return True


@pytest.mark.parametrize(("most", "taken"), [(3, 3), (1000, _MOST_ACCEPTED)])
def test_in_one_turn_no_more_are_taken_than_there_may_be_and_than_leaves_others_theirs(
    most: int, taken: int
) -> None:
    called: list[object] = []
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        worker = Accepting(listener, most)
        for _ in range(100):
            sockets.enter_context(socket.create_connection(listener.getsockname()))
            ours, theirs = socket.socketpair()
            sockets.enter_context(ours)
            sockets.enter_context(theirs).send(b"x")
            worker.poller.register(ours, selectors.EVENT_READ, called.append)
        worker.wait_for_and_dispatch_events(5)
        assert (len(called), worker.nr_conns) == (100, taken)
        assert worker._accepting is (taken < most)
        for _ in range(100):  # nothing else is ready now: turns are short
            worker.wait_for_and_dispatch_events(0)
        assert worker.nr_conns == min(most, 100)
        worker.poller.close()


@pytest.mark.parametrize("name", ["enqueue_req", "finish_request"])
def test_every_method_that_is_called_is_there(name: str) -> None:
    assert callable(getattr(ThreadWorker, name))


ASSUMED = {
    "closing after an answer goes through our connection": (
        ThreadWorker.finish_request,
        "conn.close(graceful=True)",
    ),
    "a connection that ends is counted": (ThreadWorker.finish_request, "self.nr_conns -= 1"),
    "threads are made before the application": (
        ThreadWorker.init_process,
        "self.tpool = self.get_thread_pool()",
    ),
    "there is a poller in whose place ours comes": (
        ThreadWorker.init_process,
        "self.poller = selectors.DefaultSelector()",
    ),
    "nothing else waits for it": (
        ThreadWorker.wait_for_and_dispatch_events,
        "self.poller.select(timeout)",
    ),
    "callbacks come third": (
        ThreadWorker.finish_request,
        "self.poller.register(conn.sock, selectors.EVENT_READ,",
    ),
    "it accepts from the start": (ThreadWorker.run, "self.set_accept_enabled(True)"),
    "and not when it stops": (ThreadWorker.run, "self.set_accept_enabled(False)"),
    "the loop asks between two waits whether to accept": (
        ThreadWorker.run,
        "can_accept = self.nr_conns < self.worker_connections",
    ),
    "if it does not do so": (ThreadWorker.run, "if can_accept != self._accepting:"),
    "which is not told at first": (ThreadWorker.__init__, "self._accepting = False"),
    "our hook comes before its threads": (
        Arbiter.spawn_worker,
        "self.cfg.post_fork(self, worker)\n            worker.init_process()",
    ),
    "it ends when no connection is left": (ThreadWorker.run, "while self.nr_conns > 0"),
    "connections wait in a deque": (ThreadWorker.__init__, "self.pending_conns = deque()"),
    "there is a bound to those that are kept": (
        ThreadWorker.__init__,
        "self.max_keepalived = self.cfg.worker_connections - self.cfg.threads",
    ),
    "the signals of the arbiter wait in a queue": (
        Arbiter.__init__,
        "self.SIG_QUEUE = queue.SimpleQueue()",
    ),
    "where its handlers put them": (Arbiter.signal, "self.SIG_QUEUE.put_nowait(sig)"),
    "workers are numbered from one": (Arbiter.spawn_worker, "self.worker_age += 1"),
    "and know their number": (base.Worker.__init__, "self.age = age"),
    "requests are counted from none": (base.Worker.__init__, "self.nr = 0"),
    "up to a number that may be none": (
        base.Worker.__init__,
        "self.max_requests = sys.maxsize",
    ),
    "a worker knows whom to ask for a reload": (base.Worker.__init__, "self.ppid = ppid"),
    "a signal sets alive": (ThreadWorker.handle_exit, "self.alive = False"),
    "callbacks are put in a queue": (PollableMethodQueue.defer, "partial(callback, *args)"),
    "accepted sockets inherit that they send at once": (
        sock.TCPSocket.set_options,
        "socket.TCP_NODELAY, 1",
    ),
    "an expectation is answered unless it was": (wsgi.create, "if req._expected_100_continue:"),
    "the head says so": (
        message.HeaderPolicy._apply_header_policy,  # type: ignore[attr-defined]
        "self._expected_100_continue = True",
    ),
    "a parser reads in pieces": (unreader.Unreader.read, "self.chunk(read_ahead)"),
    "a request without framing has no body": (
        message.Request.set_body_reader,
        "LengthReader(self.unreader, 0)",
    ),
    "a head that is not complete is no error of the client": (
        message.Request.read_into,
        "raise NoMoreData(bytes(buf))",
    ),
    "responses write through sendall": (util.write, "sock.sendall(data)"),
    "in chunks too": (util.write_chunk, "sock.sendall(chunk)"),
}


@pytest.mark.parametrize("what", ASSUMED)
def test_gunicorn_does_as_the_worker_assumes(what: str) -> None:
    where, sentence = ASSUMED[what]
    assert sentence in source(where), f"{what}: read {where.__qualname__} again"


def test_what_is_overdue_is_looked_for_in_every_turn() -> None:
    assert source(ThreadWorker.run).count("self.murder_pending()") == 2


def test_the_end_of_the_loop_is_told_once() -> None:
    assert source(ThreadWorker.run).count("self._cap_keepalive(") == 1


def test_of_the_time_the_arbiter_wants_what_its_replacement_has() -> None:
    assert vars(arbiter)["time"] is time, "it looks up `time` in its module each time"
    wanted = set(re.findall(r"\btime\.(\w+)", source(arbiter)))
    given = source_of_configuration("gunicorn.arbiter.time = SimpleNamespace(", ")\n")
    assert wanted == set(re.findall(r"(\w+)=", given))


def test_of_the_threads_gunicorn_only_wants_the_end() -> None:
    text = source(gthread)
    ours = text.count("self.tpool.shutdown(wait=False)") + text.count("self.tpool.submit(")
    assert text.count("self.tpool.") == ours
    assert text.count("self.tpool.submit(") == 1, "in enqueue_req, for TLS"
    assert callable(Threads.shutdown)


def test_a_stopping_worker_waits_a_moment_for_requests_on_kept_connections() -> None:
    assert gthread.STOP_KEEPALIVE_LINGER == 2.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (post(b"{}"), body.LengthReader),
        (post(b"0\r\n\r\n", "Transfer-Encoding: chunked"), body.ChunkedReader),
        (b"GET / HTTP/1.1\r\n\r\n", body.LengthReader),
    ],
)
def test_a_parsed_head_says_how_its_body_is_framed(raw: bytes, kind: type) -> None:
    request: Any = message.Request(CONFIG, unreader.IterUnreader([raw]), ADDRESS)
    reader: Any = request.body.reader
    assert kind is body.ChunkedReader or isinstance(reader.length, int)
    assert type(reader) is kind
    for name in ("method", "path", "uri", "scheme", "headers", "version", "must_close"):
        assert hasattr(request, name)
    assert hasattr(request, "_expected_100_continue")


def answer_to(raw: bytes, fields: list[tuple[str, str]], *parts: bytes) -> tuple[bytes, End]:
    """What gunicorn makes of an application's answer, and what becomes of the connection."""
    incoming = Arrival(CONFIG, ADDRESS, 1000, lambda *_: True).feed(raw)
    assert incoming is not None
    collected = Collected()
    response, environ = create(incoming.request, collected, ADDRESS, ADDRESS, CONFIG)
    assert environ["wsgi.input"] is incoming.request.body
    response.start_response("200 OK", fields)
    for part in parts:
        response.write(part)
    response.close()
    return collected.take(), end_of(response)


def test_an_answer_is_collected_with_its_framing() -> None:
    raw, end = answer_to(post(close=False), [("Content-Length", "2")], b"{}")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.endswith(b"\r\nContent-Length: 2\r\n\r\n{}")
    assert end is End.KEEP
    raw, end = answer_to(post(), [], b"a", b"b")
    assert raw.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    assert end is End.CLOSE
    raw, end = answer_to(post(b"", method="HEAD", close=False), [("Content-Length", "2")], b"{}")
    assert raw.endswith(b"\r\n\r\n")
    assert end is End.KEEP
    raw, end = answer_to(post(version="1.0", close=False), [], b"a")
    assert raw.endswith(b"\r\n\r\na")
    assert end is End.CLOSE


def test_the_endpoints_date_and_server_stand_alone() -> None:
    raw, _ = answer_to(post(), [("Date", "then"), ("server", "engine"), ("Content-Length", "0")])
    assert raw.lower().count(b"\r\ndate: ") == raw.lower().count(b"\r\nserver: ") == 1
    assert b"Date: then\r\nserver: engine\r\n" in raw


def test_two_cookies_are_joined_so_that_they_can_be_told_apart() -> None:
    incoming = Arrival(CONFIG, ADDRESS, 1000, lambda *_: True).feed(
        post(None, "Cookie: a=1,2", "Cookie: b=3")
    )
    assert incoming is not None
    _, environ = create(incoming.request, Collected(), ADDRESS, ADDRESS, CONFIG)
    assert environ["HTTP_COOKIE"] == "a=1,2; b=3"


def test_accepted_connections_send_small_answers_at_once() -> None:
    config = Config()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not config.is_ssl
