"""Settings of all tests.

Property tests take the same examples every time, so that a run that fails fails again. `HBA_FUZZ=1` makes them random
and ten times as many: how new defects are looked for.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("fuzz", max_examples=1000)
settings.load_profile("fuzz" if os.environ.get("HBA_FUZZ") else "repeatable")
