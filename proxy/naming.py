"""Which model a request is for: the one its body names, or the one that name stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cache.endpoints import Pool
from proxy.call import Call
from proxy.errors import GatewayError
from proxy.request import model_of, renamed
from routing.router import ModelUnknown, Router

#: Fields that describe a body's bytes (RFC 9530, RFC 1864), in lower case.
_DIGESTS: Final = ("content-digest", "repr-digest", "digest", "content-md5")


@dataclass(frozen=True, slots=True)
class Named:
    """What a request names: a model, or None where no body is looked at, and by which `alias`.

    `body` is what is to be forwarded. `stale_fields`, in lower case, do not describe it any more.
    """

    model: str | None
    body: bytes = field(repr=False)
    alias: str | None = None

    @property
    def stale_fields(self) -> tuple[str, ...]:
        """Those of the client's fields that were about the body as it came."""
        return _DIGESTS if self.alias else ()


class Naming:
    """Finds models by their names. `aliases` says which name stands for which model.

    An alias always applies, also where a model has its name; those of aliases are not followed.
    """

    def __init__(self, router: Router, aliases: Mapping[str, str]) -> None:
        self._router = router
        self.aliases = aliases

    def of(self, call: Call, body: bytes) -> Named:
        """What `call` names in its `body`; raises `GatewayError` as `model_of` does.

        In single-service mode it may name anything, or nothing, so only aliases are looked for. May
        block while another thread looks through a large body.
        """
        if not (self._router.needs_model or self.aliases):
            return Named(None, body)
        content_type = call.fields.get("Content-Type", "")
        may_be_form = call.path.startswith("/v1/audio/")
        try:
            name = model_of(body, content_type, may_be_form=may_be_form)
        except GatewayError:
            if self._router.needs_model:
                raise
            return Named(None, body)  # the Service shall see what it is, and say so
        model = self.aliases.get(name)
        if model is None:
            return Named(name, body)
        changed = renamed(body, content_type, model, may_be_form=may_be_form)
        return Named(model, changed, alias=name)

    def known(self, named: Named) -> Pool:
        """The pool of the model that is to answer.

        Raises `ModelUnknown`, and what `SnapshotStore.snapshot` raises.
        """
        if named.alias is None:
            return self._router.known(named.model)
        return self.pool(named.alias)

    def listed(self, models: Mapping[str, Pool]) -> dict[str, Pool]:
        """The names that requests may use: those of `models`, and aliases of known ones."""
        names = {name: pool for name, pool in models.items() if name not in self.aliases}
        for alias in self.aliases:
            try:
                names[alias] = self.pool(alias)
            except ModelUnknown:
                continue  # until there is such a model, the alias names nothing
        return names

    def pool(self, name: str) -> Pool:
        """The pool of the model that has, or has the alias, `name`; raises as `known` does."""
        model = self.aliases.get(name)
        if model is None:
            return self._router.pool(name)
        try:
            return self._router.known(model)
        except ModelUnknown:
            raise ModelUnknown(
                f"the model {name!r} stands for {model!r}, which does not exist"
            ) from None
