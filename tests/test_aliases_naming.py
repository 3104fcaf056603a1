"""Names of models: an alias always applies, and is a name only while its model is known."""

import io

import pytest

from cache.store import EndpointsStale
from proxy.call import Call
from proxy.errors import GatewayError
from proxy.naming import Named, Naming
from routing.router import ModelUnknown
from tests.fakes import endpoints
from tests.test_router import Setting


def call(path: str = "/v1/chat/completions") -> Call:
    fields = {"Content-Type": "application/json"}
    return Call("POST", path, path, fields, "http", "", io.BytesIO(), input_ends=True)


def test_a_model_goes_by_its_own_name_where_there_are_no_aliases() -> None:
    naming = Naming(Setting(llama=endpoints(1)).router, {})
    body = b'{"model":"llama"}'
    named = naming.of(call(), body)
    assert named == Named("llama", body)
    assert named.body is body
    assert (naming.known(named).model, naming.pool("llama").model) == ("llama", "llama")
    assert named.stale_fields == ()


def test_an_alias_is_taken_for_its_model_and_is_not_followed_further() -> None:
    naming = Naming(Setting(llama=endpoints(1)).router, {"gpt": "llama", "llama": "never"})
    named = naming.of(call(), b'{"model":"gpt"}')
    assert named == Named("llama", b'{"model":"llama"}', "gpt")
    assert naming.known(named).model == "llama"
    assert "content-digest" in named.stale_fields


def test_an_alias_hides_a_model_of_its_name_also_while_its_own_is_unknown() -> None:
    setting = Setting(llama=endpoints(1), gpt=endpoints(2))
    naming = Naming(setting.router, {"gpt": "qwen"})
    assert naming.listed(setting.store.snapshot().pools).keys() == {"llama"}
    with pytest.raises(ModelUnknown, match="'gpt' stands for 'qwen', which does not exist"):
        naming.pool("gpt")
    with pytest.raises(ModelUnknown, match="'gpt' stands for 'qwen'"):
        naming.known(naming.of(call(), b'{"model":"gpt"}'))
    setting.put(qwen=endpoints(3))
    listed = naming.listed(setting.store.snapshot().pools)
    assert {name: pool.model for name, pool in listed.items()} == {"qwen": "qwen", "gpt": "qwen"}


def test_a_name_that_nobody_knows_is_unknown_as_it_is() -> None:
    naming = Naming(Setting(llama=endpoints(1)).router, {"gpt": "llama"})
    with pytest.raises(ModelUnknown, match="the model 'qwen' does not exist"):
        naming.pool("qwen")


def test_what_is_stale_is_not_taken_for_unknown() -> None:
    setting = Setting(llama=endpoints(1))
    naming = Naming(setting.router, {"gpt": "llama"})
    pools = setting.store.snapshot().pools
    setting.clock.now += 601
    with pytest.raises(EndpointsStale):
        naming.pool("gpt")
    with pytest.raises(EndpointsStale):
        naming.listed(pools)


@pytest.mark.parametrize("body", [b"", b"{}", b"no JSON", b'{"model":7}', b'{"model":"any"}'])
def test_a_service_alone_gets_what_names_no_alias_as_it_came(body: bytes) -> None:
    setting = Setting(service="engine", engine=endpoints(1))
    for aliases in ({}, {"gpt": "llama"}):
        naming = Naming(setting.router, aliases)
        named = naming.of(call(), body)
        assert named.body is body
        assert naming.known(named).model == "engine"
    if body != b'{"model":"any"}':
        with pytest.raises(GatewayError):
            Naming(Setting(engine=endpoints(1)).router, {}).of(call(), body)


def test_a_service_alone_serves_aliases_whatever_they_stand_for() -> None:
    setting = Setting(service="engine", engine=endpoints(1))
    naming = Naming(setting.router, {"gpt": "llama"})
    named = naming.of(call("/v1/audio/speech"), b'{"model":"gpt"}')
    assert named == Named("llama", b'{"model":"llama"}', "gpt")
    assert naming.known(named).model == "engine"
    assert naming.pool("gpt").model == "engine"
    assert naming.listed(setting.store.snapshot().pools).keys() == {"engine", "gpt"}
