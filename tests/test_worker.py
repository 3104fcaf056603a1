"""What the worker assumes of gunicorn's private parts. Fails first when gunicorn is changed."""

import inspect

import gunicorn
import pytest
from gunicorn.http import wsgi
from gunicorn.workers.gthread import TConn, ThreadWorker

from proxy.worker import AnswerHead, ClientConnection, GatewayWorker


def test_gunicorn_is_the_version_the_worker_was_written_for() -> None:
    assert gunicorn.__version__ == "27.0.1"


OVERRIDDEN = [
    (GatewayWorker, ThreadWorker, name)
    for name in (
        "run",
        "accept",
        "handle_request",
        "handle_error",
        "murder_pending",
        "_cap_keepalive",
    )
] + [(ClientConnection, TConn, "close"), (AnswerHead, wsgi.Response, "default_headers")]


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


@pytest.mark.parametrize("name", ["set_accept_enabled", "enqueue_req", "finish_request"])
def test_every_method_that_is_called_is_there(name: str) -> None:
    assert callable(getattr(ThreadWorker, name))


@pytest.mark.parametrize(
    "sentence",
    [
        "conn.close(graceful=True)",  # closing after an answer goes through our connection
        "self.nr_conns -= 1",
    ],
)
def test_gunicorn_ends_a_request_as_the_worker_expects(sentence: str) -> None:
    assert sentence in inspect.getsource(ThreadWorker.finish_request)


def test_the_loop_goes_on_until_no_connection_is_left() -> None:
    source = inspect.getsource(ThreadWorker.run)
    assert "while self.nr_conns > 0" in source
    assert source.count("self.murder_pending()") == 2
