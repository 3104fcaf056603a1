"""The trace of a stream whose worker dies: another worker tells it whole."""

import os
import signal
import time
from pathlib import Path

from simulator.pod import Engine
from tests.collector import collecting
from tests.e2e.crowd import relay_of, wait_until_moved, workers
from tests.e2e.place import place, seen_by
from tests.e2e.test_tracing import SLACK, SPAN, new_trace, traceparent
from tests.harness import wait_for
from tests.wire import Wire, chat_body, post, values

TOKENS, PAUSE = 20, 0.1


def test_a_stream_that_outlives_its_worker_is_one_span_all_the_same(tmp_path: Path) -> None:
    with collecting() as collector:
        soon = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with place(tmp_path, environment=soon) as here:
            relay_of(here.gateway)
            model = here.deploy("moves", engine=Engine(tokens=TOKENS, token_seconds=PAUSE))
            trace_id, began = new_trace(), time.time()
            body = chat_body(model.name, stream=True)
            with Wire(here.gateway.port) as client:
                client.send(post(body, traceparent(trace_id), "tracestate: a=1"))
                wait_until_moved(here.gateway, 1)
                old = workers(here.gateway)
                for pid in old:
                    os.kill(pid, signal.SIGKILL)
                answer = client.read_to_the_end()
            assert answer.complete
            wait_for(lambda: set(workers(here.gateway)) - set(old), "there is another worker")
            server, (attempt,) = collector.of(trace_id)
        assert (server.parent_id, attempt.parent_id) == (SPAN, server.span_id)
        (seen,) = seen_by(*model.pods)
        assert values(seen.raw, "traceparent") == [f"00-{trace_id}-{attempt.span_id}-01"]
        assert server.state == "a=1"
        assert began - SLACK <= server.start <= attempt.start
        assert server.end == attempt.end >= server.start + 0.8 * TOKENS * PAUSE
        assert server.attributes["http.response.status_code"] == 200
        assert not server.failed
