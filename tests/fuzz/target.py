"""One target under atheris; the rest of the arguments are libFuzzer's."""

import sys

import atheris

with atheris.instrument_imports(include=["greenchat"]):
    from fuzz.live import TARGETS as LIVE
    from fuzz.pure import TARGETS as PURE
    from fuzz.sealed import TARGETS as SEALED

if __name__ == "__main__":
    target = {**PURE, **LIVE, **SEALED}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
