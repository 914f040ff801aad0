"""The harnesses without a fuzzer: every input of the corpus, and inputs hypothesis makes of it and of nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.target import MOST, Target
from tests.fuzz.targets import NAMES, target

EXAMPLES = 40  # of hypothesis, a target
MOST_INPUTS = 400  # of a corpus: it is to be minimised before it is committed


@pytest.fixture(scope="module", params=NAMES)
def attacked(request: pytest.FixtureRequest) -> Target:
    return target(request.param)


def test_the_corpus_breaks_nothing(attacked: Target) -> None:
    inputs = attacked.inputs()
    assert 0 < len(inputs) <= MOST_INPUTS
    for path in inputs:
        data = path.read_bytes()
        assert len(data) <= MOST
        try:
            attacked.run(data)
        except BaseException as error:
            error.add_note(f"the input is {path}; scripts/fuzz {attacked.name} --replay {path}")
            raise


def test_the_seeds_break_nothing(attacked: Target) -> None:
    for data in attacked.seeds:
        attacked.run(data)


@st.composite
def mixtures(draw: st.DrawFn, inputs: list[bytes]) -> bytes:
    """Pieces of inputs that reach something, and bytes that are of no use in between."""
    parts = draw(
        st.lists(
            st.one_of(
                st.binary(max_size=32),
                st.tuples(st.sampled_from(inputs), st.integers(0, 200), st.integers(1, 200)).map(
                    lambda cut: cut[0][cut[1] : cut[1] + cut[2]]
                ),
            ),
            max_size=8,
        )
    )
    return draw(st.sampled_from(inputs))[: draw(st.integers(1, MOST))] + b"".join(parts)


@pytest.mark.parametrize("made", ["of the corpus", "of nothing"])
def test_made_up_inputs_break_nothing(attacked: Target, made: str) -> None:
    inputs = [path.read_bytes() for path in attacked.inputs()] or list(attacked.seeds)
    strategy: st.SearchStrategy[bytes] = mixtures(inputs) if made == "of the corpus" else st.binary(max_size=400)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(strategy)
    def search(data: bytes) -> None:
        attacked.run(data)

    search()
