"""What a client does, or fails to do, is the loop's concern alone."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy.arrival import Arrival, Incoming
from proxy.clients import MOST_EARLY_BYTES, Client
from proxy.deadlines import STEP_SECONDS, Deadlines
from proxy.epoll import Epoll
from proxy.errors import GatewayError
from proxy.phases import BODY_CREDIT_SECONDS, BODY_LAG_SECONDS, BODY_RATE, HEAD_SECONDS
from proxy.sending import End
from relay.sockets import untaken
from tests.harness import wait_for
from tests.test_arrival import ADDRESS, CONFIG
from tests.wire import in_chunks, post

MOST = 3_000_000
KEEPALIVE, SEND_TIMEOUT = 75.0, 30.0


class Loop:
    """A worker's loop with a clock that is set by hand, and nobody who answers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.poller = Epoll()
        self.clock = lambda: self.now
        self.deadlines = Deadlines(self.clock)
        self.keepalive = KEEPALIVE
        self.send_timeout = SEND_TIMEOUT
        self.unfinished = 0
        self.most_unfinished = 8 * MOST
        self.requests: list[Incoming] = []
        self.errors: list[Exception] = []
        self.lingering: list[Client] = []
        self.ended: list[Client] = []
        self.deferred: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.answered: list[Client] = []  # which nobody has told the loop of

    def arrival(self, address: Any) -> Arrival:
        return Arrival(CONFIG, address, MOST, lambda *_: True)

    def dispatch(self, client: Client, incoming: Incoming) -> None:
        self.requests.append(incoming)

    def refused(self, client: Client, error: Exception) -> bytes:
        self.errors.append(error)
        return b"refused"

    def defer(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.deferred.append((callback, arguments))

    def settle(self) -> None:
        while self.answered:
            self.answered.pop().answered(End.KEEP)

    def linger(self, client: Client) -> None:
        self.lingering.append(client)

    def closed(self, client: Client) -> None:
        self.ended.append(client)

    def turn(self) -> None:
        self.poller.turn(0.01)
        deferred, self.deferred = self.deferred, []
        for callback, arguments in deferred:
            callback(*arguments)
        self.deadlines.expire()

    def turn_until(self, condition: Callable[[], Any], what: str) -> None:
        def met() -> Any:
            self.turn()
            return condition()

        wait_for(met, what, 5.0)

    def turn_until_quiet(self) -> None:
        while self.poller.turn(0):
            self.turn()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.turn()

    @property
    def watched(self) -> int:
        return self.poller.count


class Visit:
    """A client of the loop: `peer` is its end, `client` the loop's."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.peer.settimeout(5.0)
        self.client = Client(loop, ours, ADDRESS, ADDRESS)
        self.client.begin()

    def send(self, data: bytes) -> None:
        """Send and let the loop take it."""
        self.peer.sendall(data)
        self.loop.turn()

    def ask(self, data: bytes | None = None) -> Incoming:
        before = len(self.loop.requests)
        self.peer.sendall(post() if data is None else data)
        self.loop.turn_until(lambda: len(self.loop.requests) > before, "the request is there")
        return self.loop.requests[-1]


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.poller.close()


@pytest.fixture
def visit(loop: Loop) -> Iterator[Visit]:
    here = Visit(loop)
    yield here
    here.peer.close()
    here.client.socket.close()


def codes(loop: Loop) -> list[str]:
    return [error.code for error in loop.errors if isinstance(error, GatewayError)]


def test_a_request_is_dispatched_when_it_is_complete_and_not_before(
    loop: Loop, visit: Visit
) -> None:
    raw = post()
    for start in range(0, len(raw) - 1, 5):
        visit.send(raw[start : min(start + 5, len(raw) - 1)])
    assert not loop.requests
    visit.send(raw[-1:])
    assert [x.request.method for x in loop.requests] == ["POST"]
    assert loop.unfinished == 0


def test_a_client_that_says_nothing_is_left_after_a_while(loop: Loop, visit: Visit) -> None:
    loop.pass_time(KEEPALIVE - 1)
    assert not loop.ended
    loop.pass_time(1 + STEP_SECONDS)
    assert loop.ended == [visit.client]
    assert visit.peer.recv(100) == b""
    assert loop.watched == 0


def test_a_kept_connection_waits_from_its_last_answer_on(loop: Loop, visit: Visit) -> None:
    loop.pass_time(50)
    visit.ask()
    loop.pass_time(1000)
    assert not loop.ended, "while it is being answered nothing is awaited"
    visit.client.answered(End.KEEP)
    loop.pass_time(KEEPALIVE - 1)
    assert not loop.ended
    visit.ask()
    visit.client.answered(End.KEEP)
    loop.pass_time(KEEPALIVE + STEP_SECONDS)
    assert loop.ended == [visit.client]


def test_a_head_must_be_complete_some_time_after_its_first_byte(loop: Loop, visit: Visit) -> None:
    loop.pass_time(60)
    for byte in post()[:9]:
        visit.send(bytes([byte]))
        loop.pass_time(1)
    assert not loop.errors
    loop.pass_time(HEAD_SECONDS - 9 + STEP_SECONDS)
    assert codes(loop) == ["request_timeout"]
    assert visit.peer.recv(100) == b"refused"
    assert loop.lingering == [visit.client]
    assert loop.watched == 0


def test_a_body_must_not_lag_behind_the_lowest_rate(loop: Loop, visit: Visit) -> None:
    visit.send(post(bytes(MOST))[: -MOST + 1])
    for _ in range(100):
        visit.send(bytes(int(BODY_RATE)))
        loop.pass_time(1)
    assert not loop.errors
    for _ in range(int(BODY_LAG_SECONDS) + 1):
        visit.send(b"x")
        loop.pass_time(1)
    assert codes(loop) == ["request_timeout"]
    assert loop.unfinished == 0


def test_a_fast_start_does_not_buy_a_body_all_the_time(loop: Loop, visit: Visit) -> None:
    raw = post(bytes(MOST))[:-1]
    for start in range(0, len(raw), 50_000):
        visit.peer.sendall(raw[start : start + 50_000])
        loop.turn()
    loop.turn_until(lambda: loop.unfinished == MOST - 1, "it has come")
    loop.pass_time(BODY_CREDIT_SECONDS - 1)
    assert not loop.errors
    loop.pass_time(1 + STEP_SECONDS)
    assert codes(loop) == ["request_timeout"]


def test_a_deadline_ends_with_what_it_was_for(loop: Loop, visit: Visit) -> None:
    raw = post()
    visit.send(raw[:5])
    loop.pass_time(HEAD_SECONDS - 1)
    visit.send(raw[5:])
    visit.client.answered(End.KEEP)
    loop.pass_time(HEAD_SECONDS)
    assert not loop.errors
    assert not loop.ended


def test_a_client_asks_again_although_the_loop_was_not_told_of_its_answer(
    loop: Loop, visit: Visit
) -> None:
    visit.ask()
    assert not visit.client.restless
    loop.answered.append(visit.client)
    visit.ask()
    assert len(loop.requests) == 2
    assert not loop.deferred


def test_who_asks_again_before_the_answer_is_told_of_is_restless_and_gets_a_turn(
    loop: Loop, visit: Visit
) -> None:
    visit.ask()
    visit.send(post())
    assert visit.client.restless
    loop.answered.append(visit.client)
    loop.settle()
    loop.turn()
    assert len(loop.requests) == 2


def test_who_leaves_before_the_answer_is_told_of_is_restless_and_let_go(
    loop: Loop, visit: Visit
) -> None:
    visit.ask()
    visit.peer.close()
    loop.turn()
    assert visit.client.restless
    loop.answered.append(visit.client)
    loop.settle()
    assert loop.ended == [visit.client]


def test_who_leaves_after_an_answer_that_nobody_told_of_is_let_go_at_once(
    loop: Loop, visit: Visit
) -> None:
    visit.ask()
    loop.answered.append(visit.client)
    visit.peer.close()
    loop.turn()
    assert loop.ended == [visit.client]


def test_all_unfinished_requests_together_have_a_bound(loop: Loop, visit: Visit) -> None:
    loop.most_unfinished = 100_000
    others = [Visit(loop) for _ in range(4)]
    for other in others:
        other.send(post(bytes(30_000))[:20_000])
    assert loop.unfinished > 79_000
    visit.peer.sendall(post(bytes(50_000))[:40_000])
    loop.turn_until(lambda: loop.requests, "it is given up")
    with pytest.raises(GatewayError, match="too many requests are arriving at once") as refused:
        loop.requests[0].request.body.read()
    assert refused.value.code == "gateway_overloaded"
    assert loop.unfinished < 81_000, "the others go on"
    for other in others:
        other.peer.close()
        other.client.socket.close()


def test_a_client_that_leaves_while_it_is_answered_is_seen_at_once(
    loop: Loop, visit: Visit
) -> None:
    visit.ask()
    seen = []
    visit.client.caller.on_departure(lambda: seen.append(1))
    visit.peer.close()
    loop.turn_until(lambda: seen, "its departure is told")
    assert visit.client.caller.departed
    assert loop.watched == 0, "or each turn would see it again"
    assert not loop.ended, "its socket is still a thread's"
    visit.client.answered(End.KEEP)
    assert loop.ended == [visit.client]


def test_a_client_that_has_only_stopped_sending_counts_as_gone(loop: Loop, visit: Visit) -> None:
    visit.ask()
    visit.peer.shutdown(socket.SHUT_WR)
    loop.turn_until(lambda: visit.client.caller.departed, "it is seen")
    visit.client.answered(End.KEEP, b"what it gets nevertheless")
    assert visit.peer.recv(100) == b"what it gets nevertheless"
    assert visit.peer.recv(100) == b""


@pytest.mark.parametrize(
    "raw", [post()[:-1], post(in_chunks(b"{}", end=False), "Transfer-Encoding: chunked")]
)
def test_half_a_body_is_dispatched_so_that_it_is_counted_but_can_t_be_read(
    loop: Loop, visit: Visit, raw: bytes
) -> None:
    visit.send(raw)
    visit.peer.close()
    loop.turn_until(lambda: loop.requests, "it is told")
    assert visit.client.caller.departed
    with pytest.raises(ConnectionResetError):
        loop.requests[0].request.body.read(1)
    visit.client.answered(End.CLOSE)
    assert loop.ended == [visit.client]


def test_half_a_head_is_nothing(loop: Loop, visit: Visit) -> None:
    visit.send(post()[:10])
    visit.peer.close()
    loop.turn_until(lambda: loop.ended, "it is closed")
    assert not loop.requests
    assert not loop.errors
    assert loop.unfinished == 0


def test_requests_that_come_together_are_dispatched_one_after_the_other(
    loop: Loop, visit: Visit
) -> None:
    visit.ask(post(b"1") + post(b"2"))
    visit.send(post(b"3"))
    for count in (1, 2, 3):
        assert len(loop.requests) == count
        assert loop.requests[-1].request.body.read() == b"%d" % count
        visit.client.answered(End.KEEP)
        loop.turn()
    assert len(loop.requests) == 3


def fill(loop: Loop, visit: Visit) -> int:
    """Send requests until they are not read any more; how many bytes were taken."""
    visit.peer.setblocking(False)
    more = post(b"x" * 100) * 10_000
    sent = 0

    def is_full() -> bool:
        nonlocal sent
        try:
            sent += visit.peer.send(more[sent : sent + 10_000])
        except BlockingIOError:
            return not loop.poller.turn(0)
        return False

    loop.turn_until(is_full, "it is not read any more")
    return sent


def test_a_client_can_t_make_us_keep_much_that_comes_too_early(loop: Loop, visit: Visit) -> None:
    visit.ask()
    assert fill(loop, visit) < MOST_EARLY_BYTES + 600_000, "what is kept, and the kernel's buffers"
    visit.client.answered(End.KEEP)
    loop.turn()
    assert len(loop.requests) == 2
    assert loop.watched == 1


def test_what_a_client_does_not_take_at_once_is_sent_when_it_does(loop: Loop, visit: Visit) -> None:
    visit.ask()
    answer = bytes(range(256)) * 20_000
    visit.client.answered(End.KEEP, answer)
    received = b""
    while len(received) < len(answer):
        loop.turn()
        received += visit.peer.recv(100_000)
    assert received == answer
    visit.ask()


def test_a_client_that_takes_nothing_for_too_long_is_cut(loop: Loop, visit: Visit) -> None:
    visit.ask()
    visit.client.answered(End.KEEP, bytes(5_000_000))
    for _ in range(5):
        loop.turn_until_quiet()
        loop.pass_time(SEND_TIMEOUT - 1)
        assert not loop.ended
        visit.peer.recv(1_000_000)
    loop.turn_until_quiet()
    loop.pass_time(SEND_TIMEOUT + STEP_SECONDS)
    assert loop.ended == [visit.client]


def test_a_client_that_leaves_with_its_answer_half_taken_is_closed(
    loop: Loop, visit: Visit
) -> None:
    visit.ask()
    visit.client.answered(End.KEEP, bytes(5_000_000))
    visit.peer.close()
    loop.turn_until(lambda: loop.ended == [visit.client], "it is closed")


@pytest.mark.parametrize("order", ["answered first", "over first"])
@pytest.mark.parametrize("reusable", [True, False])
def test_a_connection_that_is_away_comes_back_or_is_closed(
    loop: Loop, visit: Visit, order: str, reusable: bool
) -> None:
    visit.ask()
    if order == "over first":
        visit.client.over(reusable)
        assert not loop.ended, "its thread is not done with it"
        visit.client.answered(End.AWAY)
    else:
        visit.client.answered(End.AWAY)
        assert loop.watched == 0, "it is the relay's"
        visit.client.over(reusable)
    if reusable:
        visit.ask()
        visit.client.answered(End.AWAY)
        loop.pass_time(10_000)
        assert not loop.ended
    else:
        assert loop.ended == [visit.client]
        assert not loop.lingering, "that was the relay's part"


def test_an_answer_that_must_not_look_complete_ends_with_a_reset(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), 5.0)
        ours, address = listener.accept()
    ours.setblocking(False)
    client = Client(loop, ours, address, address)
    client.begin()
    with peer:
        peer.sendall(post())
        loop.turn_until(lambda: loop.requests, "it is there")
        client.answered(End.RESET)
        with pytest.raises(ConnectionResetError):
            peer.recv(100)
    assert loop.ended == [client]


def test_after_the_last_answer_the_client_may_read_it_first(loop: Loop, visit: Visit) -> None:
    visit.ask()
    visit.client.answered(End.CLOSE, b"the answer")
    assert loop.lingering == [visit.client]
    assert loop.watched == 0
    loop.pass_time(10_000)
    assert not loop.ended, "from now on it is not ours"


def test_what_is_no_http_is_refused_and_lingered_on(loop: Loop, visit: Visit) -> None:
    visit.send(b"no http\r\n\r\n")
    assert visit.peer.recv(100) == b"refused"
    assert [type(error).__name__ for error in loop.errors] == ["InvalidRequestLine"]
    assert loop.lingering == [visit.client]


def test_a_client_that_waits_for_a_continue_gets_it(loop: Loop, visit: Visit) -> None:
    raw = post(b"{}", "Expect: 100-continue")
    visit.send(raw[:-2])
    assert visit.peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    visit.ask(raw[-2:])


def test_a_stopping_worker_waits_less_for_connections_without_a_request(loop: Loop) -> None:
    idle, half = Visit(loop), Visit(loop)
    half.send(post()[:5])
    for one in (idle, half):
        one.client.cap(loop.now + 2)
    loop.pass_time(2 + STEP_SECONDS)
    assert loop.ended == [idle.client]
    assert len(half.ask(post()[5:]).request.headers) > 0
    for one in (idle, half):
        one.peer.close()
        one.client.socket.close()


def test_an_event_of_the_same_turn_does_not_reach_a_connection_that_is_over(
    loop: Loop, visit: Visit
) -> None:
    """The list of events was made before the end was heard of."""
    visit.ask()
    visit.client.answered(End.CLOSE)
    visit.peer.sendall(b"more")
    visit.client.readable()
    visit.client.writable()
    assert not loop.errors
    assert loop.lingering == [visit.client]


def test_a_client_that_reads_slowly_is_not_taken_for_one_that_reads_nothing(loop: Loop) -> None:
    """What it takes shows in what is left long before the socket is writable again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listener.getsockname())
        ours, address = listener.accept()
    ours.setblocking(False)
    client = Client(loop, ours, address, address)
    client.begin()
    with peer, ours:
        peer.sendall(post())
        loop.turn_until(lambda: loop.requests, "it is there")
        client.answered(End.KEEP, bytes(20_000_000))
        loop.turn_until_quiet()
        for _ in range(3):
            before = untaken(ours)

            def taken(before: int = before) -> bool:
                return len(peer.recv(20_000)) > 0 and untaken(ours) < before

            loop.turn_until(taken, "the kernel knows that it reads")
            loop.pass_time(SEND_TIMEOUT + STEP_SECONDS)
            assert not loop.ended
        loop.turn_until_quiet()
        loop.pass_time(SEND_TIMEOUT + STEP_SECONDS)
        loop.pass_time(SEND_TIMEOUT + STEP_SECONDS)
        assert loop.ended == [client]


def test_a_client_is_silent_while_nothing_of_it_waits_to_be_read(visit: Visit) -> None:
    def is_silent() -> bool:
        return visit.client.is_silent

    assert is_silent()
    visit.peer.sendall(b"P")
    assert not is_silent(), "the loop has not seen it yet"
    visit.loop.turn()
    assert is_silent()
    visit.peer.close()
    assert not is_silent()


def test_how_long_a_client_keeps_us_waiting(loop: Loop, visit: Visit) -> None:
    loop.now += 20
    assert visit.client.waited == 20, "without a request"
    body = bytes(10_000)
    raw = post(body)
    visit.send(raw[:5])
    loop.now += 3
    assert visit.client.waited == 3, "for the rest of a head"
    visit.send(raw[5 : -len(body)])
    loop.now += 2
    visit.send(body[: int(2 * BODY_RATE)])
    assert visit.client.waited == 0, "as fast as it must be"
    loop.now += 4
    assert visit.client.waited == 4, "for the rest of a body"
    visit.ask(body[int(2 * BODY_RATE) :])
    assert visit.client.waited < 0, "now it waits for us"
    visit.client.answered(End.KEEP, bytes(5_000_000))
    loop.now += 5
    assert visit.client.waited < 0, "and takes its time with the answer"


def test_a_request_that_comes_when_its_time_is_over_is_taken_all_the_same(
    loop: Loop, visit: Visit
) -> None:
    visit.peer.sendall(post())
    loop.now += KEEPALIVE + STEP_SECONDS
    loop.deadlines.expire()
    assert len(loop.requests) == 1
    assert not loop.ended


def test_who_has_left_when_its_time_is_over_is_let_go(loop: Loop, visit: Visit) -> None:
    visit.peer.close()
    loop.now += KEEPALIVE + STEP_SECONDS
    loop.deadlines.expire()
    assert loop.ended == [visit.client]


def test_large_requests_that_do_not_end_keep_small_ones_from_nothing(loop: Loop) -> None:
    loop.most_unfinished = 400_000
    large, small = [Visit(loop) for _ in range(4)], Visit(loop)
    for one in large:
        one.peer.sendall(post(bytes(200_000))[:98_000])
    loop.turn_until(lambda: loop.unfinished > 390_000, "the large ones are there")
    raw = post(bytes(20_000))
    small.send(raw[:15_000])
    assert loop.unfinished > loop.most_unfinished
    assert small.ask(raw[15_000:]).request.body.read() == bytes(20_000)
    large[0].peer.sendall(bytes(50_000))
    loop.turn_until(lambda: len(loop.requests) == 2, "a large one is given up")
    with pytest.raises(GatewayError, match="too many requests are arriving at once"):
        loop.requests[1].request.body.read()
    for one in (*large, small):
        one.peer.close()
        one.client.socket.close()


@pytest.mark.parametrize("how", ["fin", "close"])
def test_who_leaves_after_it_has_sent_too_much_too_early_is_seen_at_once(
    loop: Loop, visit: Visit, how: str
) -> None:
    visit.ask()
    fill(loop, visit)
    assert not visit.client.caller.departed
    if how == "fin":
        visit.peer.shutdown(socket.SHUT_WR)
    else:
        visit.peer.close()
    loop.turn_until(lambda: visit.client.caller.departed, "its departure is told")
    assert loop.watched == 0, "or each turn would see it again"
    visit.client.answered(End.KEEP)
    loop.turn_until(lambda: loop.ended == [visit.client], "it is closed")
