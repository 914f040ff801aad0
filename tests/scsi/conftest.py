"""A real event loop and its workers, as the tests of the stores have them."""

from tests.storage.conftest import loop, workers

__all__ = ["loop", "workers"]
