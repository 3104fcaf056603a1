"""The parsers that are searched, by name."""

from types import ModuleType
from typing import Final

from fuzz import arrival, framing, slices

#: Modules with `seeds()`, `WORDS` to try, and `check(data)`.
TARGETS: Final[dict[str, ModuleType]] = {"slices": slices, "framing": framing, "arrival": arrival}
