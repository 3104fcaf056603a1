"""One parser's search, in a process of its own: atheris ends it. `python -m fuzz.search NAME …`."""

import importlib
import sys

import atheris  # type: ignore[import-untyped]  # in an environment of its own

#: What is looked at for branches not taken yet.
LOOKED_AT = ["cache", "proxy", "relay"]


def main() -> None:
    """Give inputs to the check of the parser that the first argument names, until told to stop."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=LOOKED_AT):
        target = importlib.import_module(f"fuzz.{name}")
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
