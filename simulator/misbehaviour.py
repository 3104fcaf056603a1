"""Every way an answer can be spoilt: a table from a kind to what is then done on the wire."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import replace

from simulator.answers import Answer
from simulator.behaviour import Behaviour, Kind
from simulator.exchange import Exchange
from simulator.http import chunk, response_head

_CLOSE = ("connection", "close")
Act = Callable[[Exchange, Behaviour], Awaitable[None]]
_ACTS: dict[Kind, Act] = {}


async def perform(exchange: Exchange, behaviour: Behaviour | None) -> None:
    """Answer the exchange well, or as the behaviour wants it."""
    if behaviour is None:
        await exchange.answer_well()
    else:
        await _ACTS[behaviour.kind](exchange, behaviour)


def _act(*kinds: Kind) -> Callable[[Act], Act]:
    """Enter a function into the table."""

    def enter(act: Act) -> Act:
        _ACTS.update(dict.fromkeys(kinds, act))
        return act

    return enter


def _length(size: int) -> tuple[str, str]:
    return ("content-length", str(size))


_CHUNKED = ("transfer-encoding", "chunked")


# --- The connection goes away -------------------------------------------------------------------


@_act(Kind.RESET_BEFORE_HEAD, Kind.RESET_DURING_REQUEST)
async def _reset_before_head(x: Exchange, _: Behaviour) -> None:
    x.wire.reset()


@_act(Kind.CLOSE_BEFORE_HEAD)
async def _close_before_head(x: Exchange, _: Behaviour) -> None:
    x.wire.close()


@_act(Kind.RESET_AFTER_HEAD)
async def _reset_after_head(x: Exchange, _: Behaviour) -> None:
    await x.think()
    x.wire.write(x.head())
    await x.next_token()
    x.wire.reset()


@_act(Kind.DIE_AFTER_TOKENS, Kind.CLOSE_AFTER_TOKENS, Kind.STALL_AFTER_TOKENS)
async def _stop_after_tokens(x: Exchange, behaviour: Behaviour) -> None:
    await x.think()
    x.wire.write(x.head())
    await x.send_tokens(behaviour.count)
    if behaviour.kind is Kind.STALL_AFTER_TOKENS:
        await asyncio.Event().wait()
    await x.next_token()
    if behaviour.kind is Kind.DIE_AFTER_TOKENS:
        x.wire.reset()
    else:
        x.wire.close()


@_act(Kind.STALL_BEFORE_HEAD)
async def _stall_before_head(x: Exchange, behaviour: Behaviour) -> None:
    await asyncio.sleep(behaviour.number)
    await x.answer_well()


@_act(Kind.CLOSE_IDLE)
async def _close_idle(x: Exchange, _: Behaviour) -> None:
    await x.answer_well()
    x.wire.close()


@_act(Kind.RESET_ON_REUSE)
async def _reset_on_reuse(x: Exchange, _: Behaviour) -> None:
    await x.answer_well()
    x.wire.reset_next = True


# --- The body's framing -------------------------------------------------------------------------


@_act(Kind.END_WITHOUT_DONE)
async def _end_without_done(x: Exchange, _: Behaviour) -> None:
    await x.think()
    x.wire.write(x.head())
    await x.send_body(closed=False)


@_act(Kind.TRUNCATED_CHUNK, Kind.BAD_CHUNK_SIZE)
async def _broken_chunk(x: Exchange, behaviour: Behaviour) -> None:
    body = x.whole()
    good, rest = body[: len(body) // 2], body[len(body) // 2 :]
    broken = chunk(rest)[: -len(rest) // 2]
    if behaviour.kind is Kind.BAD_CHUNK_SIZE:
        broken = b"zz\r\n" + rest + b"\r\n"
    await x.think()
    x.wire.write(x.head(framing=[_CHUNKED]) + chunk(good))
    await x.next_token()
    x.wire.write(broken)
    x.wire.close()


@_act(Kind.CHUNK_EXTENSIONS, Kind.TRAILERS)
async def _unusual_chunks(x: Exchange, behaviour: Behaviour) -> None:
    body = x.whole()
    half = len(body) // 2
    await x.think()
    if behaviour.kind is Kind.TRAILERS:
        head = x.head([("trailer", "x-sim-trailer")], [_CHUNKED])
        end = b"0\r\nx-sim-trailer: the end\r\n\r\n"
        x.wire.write(head + chunk(body[:half]) + chunk(body[half:]) + end)
        return
    extended = chunk(body[:half]).replace(b"\r\n", b";name=value;flag\r\n", 1)
    x.wire.write(x.head(framing=[_CHUNKED]) + extended + chunk(body[half:]) + chunk(b""))


@_act(Kind.DRIP_CHUNK)
async def _drip_chunk(x: Exchange, behaviour: Behaviour) -> None:
    framed = chunk(x.whole()) + chunk(b"")
    await x.think()
    x.wire.write(x.head(framing=[_CHUNKED]))
    # Cuts within the size, within the line's end, within the data and within the final chunk.
    cuts = [0, 1, framed.index(b"\n"), len(framed) // 2, len(framed) - 6, len(framed) - 3]
    for begin, end in zip(cuts, [*cuts[1:], len(framed)], strict=True):
        await asyncio.sleep(behaviour.number)
        x.wire.write(framed[begin:end])


@_act(Kind.SHORT_LENGTH)
async def _short_length(x: Exchange, _: Behaviour) -> None:
    body = x.whole()
    await x.think()
    x.wire.write(x.head(framing=[_length(len(body) + 10)]) + body)
    x.wire.close()


@_act(Kind.CLOSE_FRAMED, Kind.CLOSE_FRAMED_TRUNCATED, Kind.HTTP_1_0)
async def _close_framed(x: Exchange, behaviour: Behaviour) -> None:
    await x.think()
    head = x.head(framing=[_CLOSE])
    if behaviour.kind is Kind.HTTP_1_0:
        head = head.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    x.wire.write(head)
    if behaviour.kind is Kind.CLOSE_FRAMED_TRUNCATED:
        await x.send_tokens(chunked=False)
    else:
        await x.send_body(chunked=False)
    x.wire.close()


@_act(Kind.BOTH_FRAMINGS)
async def _both_framings(x: Exchange, _: Behaviour) -> None:
    body = x.whole()
    head = x.head(framing=[_length(len(body)), _CHUNKED])
    await x.think()
    x.wire.write(head + chunk(body) + chunk(b""))


@_act(Kind.TWO_LENGTHS)
async def _two_lengths(x: Exchange, _: Behaviour) -> None:
    body = x.whole()
    await x.think()
    x.wire.write(x.head(framing=[_length(len(body)), _length(len(body) - 1)]) + body)


@_act(Kind.EXTRA_BYTES)
async def _extra_bytes(x: Exchange, _: Behaviour) -> None:
    """A second answer that nobody asked for: whoever reuses the connection would read it."""
    await x.answer_well()
    body = b'{"stolen": true}'
    x.wire.write(response_head(200, [_length(len(body))]) + body)


# --- The head -----------------------------------------------------------------------------------


@_act(Kind.MANY_HEADERS, Kind.HUGE_HEADER, Kind.GATEWAY_ERROR_HEADER, Kind.HOP_BY_HOP)
async def _more_headers(x: Exchange, behaviour: Behaviour) -> None:
    await x.answer_well(
        {
            Kind.MANY_HEADERS: [(f"x-many-{n}", str(n)) for n in range(behaviour.count)],
            Kind.HUGE_HEADER: [("x-huge", "h" * behaviour.count)],
            Kind.GATEWAY_ERROR_HEADER: [("x-gateway-error", "made_by_the_pod")],
            Kind.HOP_BY_HOP: [
                ("connection", "keep-alive, x-hop"),
                ("x-hop", "for the gateway only"),
                ("keep-alive", "timeout=5"),
                ("proxy-authenticate", "Basic"),
            ],
        }[behaviour.kind]
    )


@_act(Kind.OBS_FOLD, Kind.BARE_LF)
async def _odd_lines(x: Exchange, behaviour: Behaviour) -> None:
    head = x.head([("x-folded", "one\r\n two")] if behaviour.kind is Kind.OBS_FOLD else [])
    if behaviour.kind is Kind.BARE_LF:
        head = head.replace(b"\r\n", b"\n")
    await x.think()
    x.wire.write(head)
    await x.send_body()


@_act(Kind.SLOW_HEAD)
async def _slow_head(x: Exchange, behaviour: Behaviour) -> None:
    head = x.head()
    for n in range(len(head)):
        x.wire.write(head[n : n + 1])
        await asyncio.sleep(behaviour.number / len(head))
    await x.send_body()


@_act(Kind.EARLY_HINTS, Kind.CONTINUE_FIRST)
async def _informational(x: Exchange, behaviour: Behaviour) -> None:
    early = behaviour.kind is Kind.EARLY_HINTS
    x.wire.write(
        response_head(103, [("link", "</style.css>")]) if early else response_head(100, [])
    )
    await x.answer_well()


@_act(Kind.GARBAGE)
async def _garbage(x: Exchange, _: Behaviour) -> None:
    x.wire.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    x.wire.close()


# --- Another answer -----------------------------------------------------------------------------


@_act(Kind.STATUS, Kind.REDIRECT, Kind.NO_CONTENT, Kind.LARGE)
async def _another_answer(x: Exchange, behaviour: Behaviour) -> None:
    match behaviour.kind:
        case Kind.STATUS:
            x.answer = Answer.error(behaviour.count, "so it was asked for")
        case Kind.REDIRECT:
            location = ("location", f"http://{x.request.headers.get('host', '')}/v1/redirected")
            x.answer = Answer(307, b"{}", headers=(location,))
        case Kind.NO_CONTENT:
            x.answer = Answer(204)
        case _:
            x.answer = replace(x.answer, body=b"x" * behaviour.count, stream=None)
    await x.answer_well()


@_act(Kind.GZIP)
async def _gzip(x: Exchange, _: Behaviour) -> None:
    body = gzip.compress(x.whole())
    await x.think()
    x.wire.write(x.head([("content-encoding", "gzip")], [_length(len(body))]) + body)
