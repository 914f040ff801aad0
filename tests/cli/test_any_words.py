"""Whatever is on the command line, it ends with a code of the table, and what is wrong is told in the one shape.

Command lines are drawn from click's own declarations: options with values that fit, nearly fit, and do not.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import takewhile
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.cli.lun import UnitAddress
from hba.errors import EXIT_FAILED, EXIT_INTERNAL, EXIT_OK, EXITS
from hba.lab.kernel import _download
from hba.terminal import entry
from tests.cli.shape import check_error
from tests.cli.stage import PROGRAMS, commands, staged

COMMANDS = commands()
FILES = ("good.toml", "bad.toml", "none.toml", ".", "/dev/null", "", "x" * 300, "good.toml/x", "\x1b[2J")
TEXTS = (
    *("fake0", "nobody", "regs", "all", "rgs", "smoke", "smok", "pc", "9.9", "6.1", "1M", "0", "-1", "64", "", " "),
    *("é", "\x1b[2J", 'kind = "memory", size = "1M"', 'serial = "S1"', "= 1", "[", "MB-05", "on", "./fake0", "a" * 300),
)


@pytest.fixture(scope="module", autouse=True)
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("stage")
    (folder / "good.toml").write_text('[[adapter]]\ntype = "pvscsi"\n')
    (folder / "bad.toml").write_text('[[adapter]]\ntype = "pvscis"\nprot = 1\n')
    with staged(folder), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def values(kind: click.ParamType) -> st.SearchStrategy[str]:
    """Words for a parameter of this type; one in a few does not fit."""
    fitting: st.SearchStrategy[str]
    if isinstance(kind, click.Choice):
        fitting = st.sampled_from(list(map(str, kind.choices)))
    elif isinstance(kind, click.Path):
        fitting = st.sampled_from(FILES)
    elif isinstance(kind, UnitAddress):
        fitting = st.sampled_from(["0", "1", "1:0", "2:3", "300", "1:", ":1", "1:x"])
    elif isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        fitting = st.sampled_from(["0", "1", "3", "64", "1e9", "nan", "inf", "-1", "9" * 30])
    else:
        fitting = st.sampled_from(TEXTS)
    return st.one_of(fitting, fitting, fitting, st.sampled_from(TEXTS))


@st.composite
def lines(draw: st.DrawFn, command: click.Command) -> tuple[str, ...]:
    """The words after the name of `command`."""
    words: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            most = 3 if parameter.nargs < 0 else 1
            least = 1 if parameter.required and draw(st.integers(0, 9)) else 0
            words += draw(st.lists(values(parameter.type), min_size=least, max_size=most))
            continue
        assert isinstance(parameter, click.Option)
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
            words.append(draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts])))
            if not parameter.is_flag and draw(st.integers(0, 19)):
                words.append(draw(values(parameter.type)))
    stray = draw(st.sampled_from([(), (), (), (), ("--bogus",), ("-z",), ("--",), ("more",), ("--json",), ("--help",)]))
    at = draw(st.integers(0, len(words)))
    return (*words[:at], *stray, *words[at:])


def run(program: str, words: tuple[str, ...]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = entry.run(PROGRAMS[program], program, words, lambda error: None)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("program", "path", "command"), COMMANDS, ids=[" ".join((program, *path)) for program, path, _ in COMMANDS]
)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_words(program: str, path: tuple[str, ...], command: click.Command, data: st.DataObject) -> None:
    words = (*path, *data.draw(lines(command)))
    code, out, err = run(program, words)
    assert code in {known.code for known in EXITS} - {EXIT_INTERNAL}, (words, err)
    assert "Traceback" not in out + err
    if code not in (EXIT_OK, EXIT_FAILED):
        check_error(err, code, words, as_json="--json" in takewhile(lambda word: word != "--", words))


def test_no_error_is_a_red_verdict() -> None:
    from hba import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HbaError)]
    assert EXIT_FAILED not in {kind.exit_code for kind in kinds} and len(kinds) > 8


def test_a_kernel_that_no_mirror_has_is_wrong_usage(tmp_path: Path) -> None:
    recipe = {"kernel": {"suites": ["stable"]}}
    with pytest.raises(Exception, match=r"--kernel 9\.9: .* it has: 6\.1\.0-9-amd64") as caught:
        _download("9.9", ["linux-image-6.1.0-9-amd64"], None, recipe, None, "key")  # type: ignore[arg-type]
    assert getattr(caught.value, "exit_code", None) == 2
