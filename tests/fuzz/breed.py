"""One harness under the coverage-guided fuzzer, in a process of its own: libFuzzer ends it.

`python -m tests.fuzz.breed TARGET LIBFUZZER-ARGUMENTS...`; `tests.fuzz.__main__` calls it.
"""

from __future__ import annotations

import logging
import os
import sys

os.environ["HBA_PURE"] = "1"  # machine code shows no coverage

import atheris

AGAIN = "HBA_FUZZ_AGAIN"  # a program that is this one with its target: libFuzzer starts itself anew to merge

# Only ours: what others' code does with an input is not what the input is to be chosen for.
with atheris.instrument_imports(include=["hba"]):
    from tests.fuzz.targets import target

    attacked = target(sys.argv[1])


def main() -> None:
    logging.disable(logging.CRITICAL)
    atheris.Setup([os.environ[AGAIN], *sys.argv[2:]], attacked.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
