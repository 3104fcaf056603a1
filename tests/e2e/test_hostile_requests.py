"""Request lines, targets and hosts that break the rules of HTTP, and those that only look so."""

from collections.abc import Iterator

import pytest

from simulator.pod import Engine
from tests.e2e.hostile import FIRST, HOST, SECRET, check_refused, framed, reaching_the_pod, request
from tests.e2e.place import Place, place
from tests.wire import CHAT, Wire, body_of, chat_body, head_of, post


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("hostile-requests")) as here:
        here.deploy("llama", engine=Engine(tokens=2, token_seconds=0.001))
        yield here


#: RFC 9112 §3, §2.3.
REQUEST_LINES = [
    *("post {} HTTP/1.1", "Post {} HTTP/1.1", "PO(ST {} HTTP/1.1", "PO\x00ST {} HTTP/1.1"),
    *("PO\xd6ST {} HTTP/1.1", f"{'P' * 21} {{}} HTTP/1.1", " POST {} HTTP/1.1"),
    *("\tPOST {} HTTP/1.1", "\nPOST {} HTTP/1.1", "\r\n\r\nPOST {} HTTP/1.1"),
    *("POST  {} HTTP/1.1", "POST {}  HTTP/1.1", "POST\t{} HTTP/1.1", "POST {}\tHTTP/1.1"),
    *("POST {} HTTP/1.1 ", "POST {} HTTP/1.1\x0b", "POST {} x HTTP/1.1", "POST {} HTTP/1.1 x"),
    *("POST HTTP/1.1", "POST {}", "POST", "{} HTTP/1.1", ""),
    *("POST {} HTTP/1", "POST {} HTTP/1.10", "POST {} HTTP/01.1", "POST {} HTTP/1.1x"),
    *("POST {} http/1.1", "POST {} HTTPS/1.1", "POST {} HTTP/-1.1", "POST {} HTTP/1,1"),
    *("POST {} HTTP/1.\xb9", "POST {} HTTP 1.1", "POST {} ICY/1.1", "POST {} HTTP/ 1.1"),
    *("POST {} HTTP/1.1\rX: a", "POST {} HTTP/1.1\nX: a", "POST {}\r HTTP/1.1"),
]


@pytest.mark.fault(25)
@pytest.mark.parametrize("line", REQUEST_LINES)
def test_a_line_that_is_no_request_line_is_refused(here: Place, line: str) -> None:
    check_refused(here, framed(line.format(CHAT), HOST), 400)


@pytest.mark.fault(25)
@pytest.mark.parametrize("version", ["0.9", "2.0", "2.1", "3.0", "9.9"])
def test_a_version_that_is_not_spoken_is_refused(here: Place, version: str) -> None:
    check_refused(here, framed(f"POST {CHAT} HTTP/{version}", HOST), 505)


NO_HTTP = {
    "a simple request of HTTP/0.9": b"GET /\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "a greeting of mail": b"EHLO gateway.test\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "the PROXY protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + framed(FIRST, HOST),
    "its second version": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    "zeros": bytes(64),
    "line ends alone": b"\r\n\r\n",
    "bare ends of lines": framed(FIRST, HOST).replace(b"\r\n", b"\n"),
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", NO_HTTP)
def test_what_is_no_http_is_refused_without_waiting_for_more(here: Place, case: str) -> None:
    check_refused(here, NO_HTTP[case], 400)


TOO_MUCH = {
    "a long target": (framed(f"POST {CHAT}?{'a' * 9000} HTTP/1.1", HOST), 414),
    "a target without an end": (b"GET /" + b"a" * 20_000, 414),
    "a large field": (framed(FIRST, HOST, f"X-A: {'a' * 9000}"), 431),
    "many fields": (framed(FIRST, HOST, *["X-A: a"] * 200), 431),
    "another expectation": (framed(FIRST, HOST, "Expect: 200-ok"), 417),
    "two expectations": (framed(FIRST, HOST, "Expect: 100-continue, tea"), 417),
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", TOO_MUCH)
def test_what_asks_for_too_much_is_told_so(here: Place, case: str) -> None:
    raw, status = TOO_MUCH[case]
    check_refused(here, raw, status)


#: RFC 9112 §3.2, RFC 9110 §4.2.
TARGETS = [
    *("v1/chat/completions", "gateway.test", "gateway.test:80", "*", "**", "?", "#", ""),
    *("{}#fragment", "{}?a#fragment", "{}\x01", "{}\x7f", "{}\x00", "{}\x80", "{}\xc3\xa9"),
    *("ftp://gateway.test{}", "file://{}", "javascript:alert(1)", "http:{}", "https:{}"),
    *("http://{}", "http://user@gateway.test{}", "http://user:pw@gateway.test{}", "http://@a{}"),
    *("http://gateway.test:port{}", "http://gateway.test:-1{}", "http://:80{}", "http://[::1{}"),
    *("http://[::g]{}", "http://gateway.test\\@other.test{}", "http://a%zz{}", "://a{}"),
    *("http://gateway.test{}#x", "\\\\gateway.test{}", "x{}"),
]


@pytest.mark.fault(25, 28)
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_of_no_known_form_is_refused(here: Place, target: str) -> None:
    check_refused(here, framed(f"POST {target.format(CHAT)} HTTP/1.1", HOST), 400)


@pytest.mark.fault(25)
@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
@pytest.mark.parametrize("target", [CHAT, "/healthz", "http://gateway.test/", "http://a@b/"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_there_is_no_tunnel_and_no_echo(
    here: Place, method: str, target: str, version: str
) -> None:
    answer = check_refused(here, framed(f"{method} {target} HTTP/{version}", HOST), 405)
    assert answer.value("allow") == "GET, HEAD, POST"


@pytest.mark.fault(25, 28)
@pytest.mark.parametrize("target", ["127.0.0.1:9", "gateway.test:443", "[::1]:22", "x"])
def test_nothing_is_connected_for_a_client(here: Place, target: str) -> None:
    check_refused(here, request(f"CONNECT {target} HTTP/1.1", f"Host: {target}"), 405)


HOSTS = {
    "none": [],
    "two that are equal": [HOST, HOST],
    "two in other letters": [HOST, "hOST: gateway.test"],
    "two that are not": [HOST, "Host: other.test"],
    "an empty one and another": ["Host:", HOST],
    "two in one": ["Host: gateway.test, other.test"],
    "a space before the colon": ["Host : gateway.test"],
    "one that is folded": ["Host:", " gateway.test"],
    **{
        value: [f"Host: {value}"]
        for value in (
            *("a b", "a/b", "a?b", "a#b", "a\\b", "user@a", "a:b", "a:1:2", ":80", "a:123456"),
            *(
                "::1",
                "[::1",
                "[]",
                "[::g]",
                "[fe80::1%25lo]",
                "%zz",
                "<a>",
                "\xe9",
                "a\x00",
                "a\tb",
            ),
        )
    },
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", HOSTS)
def test_a_request_without_one_valid_host_is_refused(here: Place, case: str) -> None:
    check_refused(here, framed(FIRST, *HOSTS[case]), 400)


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("first", "host"),
    [
        (f"POST http://gateway.test{CHAT} HTTP/1.1", []),
        (f"POST http://gateway.test{CHAT} HTTP/1.1", ["Host: a b"]),
        (f"POST {CHAT} HTTP/1.2", []),
        (f"POST {CHAT} HTTP/1.0", ["Host: a b"]),
        (f"POST {CHAT} HTTP/1.0", [HOST, HOST]),
        ("GET /healthz HTTP/1.1", []),
    ],
)
def test_neither_target_nor_version_makes_up_for_it(
    here: Place, first: str, host: list[str]
) -> None:
    check_refused(here, framed(first, *host), 400)


SERVED = {
    "an empty line before it": b"\r\n" + framed(FIRST, HOST),
    "an empty host": framed(FIRST, "Host:"),
    "a host that is an address": framed(FIRST, "Host: [2001:db8::1]:8080"),
    "an absolute target": framed(f"POST http://other.test{CHAT} HTTP/1.1", HOST),
    "one in capital letters": framed(f"POST HTTPS://OTHER.test:443{CHAT} HTTP/1.1", HOST),
    "a later minor version": framed(f"POST {CHAT} HTTP/1.2", HOST),
    "an older one": framed(f"POST {CHAT} HTTP/1.0", HOST),
    "an older one without a host": framed(f"POST {CHAT} HTTP/1.0"),
    "one that expects what it can't": framed(f"POST {CHAT} HTTP/1.0", HOST, "Expect: 100-continue"),
    "an upgrade": framed(FIRST, HOST, "Connection: upgrade", "Upgrade: websocket",
                         "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4A=="),
    "an upgrade to HTTP/2": framed(FIRST, HOST, "Connection: Upgrade, HTTP2-Settings",
                                   "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "an upgrade to TLS": framed(FIRST, HOST, "Connection: Upgrade", "Upgrade: TLS/1.2, HTTP/1.1"),
}  # fmt: skip


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", SERVED)
def test_what_is_only_unusual_is_served_and_nothing_is_switched(here: Place, case: str) -> None:
    with reaching_the_pod(here, 1) as seen, Wire(here.gateway.port) as wire:
        answer = wire.send(SERVED[case]).read_until(b'"chat.completion"')
    version = "HTTP/1.0" if b" HTTP/1.0\r\n" in SERVED[case] else "HTTP/1.1"
    assert head_of(answer)[0] == f"{version} 200 OK"
    first, fields = head_of(seen[0])
    assert (first, body_of(seen[0])) == (FIRST, chat_body())
    assert ("cookie", SECRET) in fields
    assert not {"upgrade", "http2-settings", "connection", "expect"} & {name for name, _ in fields}


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PRI", "X-Y"]
)
def test_a_method_that_is_not_taken_is_told_which_is(here: Place, method: str) -> None:
    with reaching_the_pod(here, 0):
        answer = here.exchange(post(method=method))
    assert (answer.status, answer.value("allow")) == (405, "POST")
    assert answer.value("x-gateway-error") == "method_not_allowed"


@pytest.mark.fault(25)
@pytest.mark.parametrize("target", ["*", "http://gateway.test", "http://gateway.test?x", "/."])
def test_targets_that_are_valid_and_nowhere_are_unknown(here: Place, target: str) -> None:
    with reaching_the_pod(here, 0):
        answer = here.exchange(post(b"", method="OPTIONS", target=target))
    assert (answer.status, answer.value("x-gateway-error")) == (404, "unknown_path")
