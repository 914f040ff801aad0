"""`miniport = "..."` of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.errors import ConfigError
from hba.miniport.chip import Chip
from hba.miniport.dma import DmaMiniport
from hba.miniport.examples.good import GoodMiniport
from hba.miniport.load import load_miniport, miniport_class
from tests.miniport.rig import AnsweringBus, Memory


def test_names() -> None:
    assert miniport_class("dma") is DmaMiniport
    assert miniport_class("hba.miniport.examples.good:GoodMiniport") is GoodMiniport


def test_load_sets_chip_and_options() -> None:
    chip = Chip(AnsweringBus(), Memory())
    options = {"next": "start_io"}
    miniport = load_miniport("dma", chip, options)
    assert miniport.chip is chip and miniport.options == options and miniport.options is not options


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "expected"),
        ("pio", "expected"),
        ("hba.miniport.dma:", "expected"),
        (":Class", "expected"),
        ("no_such_module:Class", "no module 'no_such_module'"),
        ("hba.no_such:Class", "no module 'hba.no_such'"),
        ("hba.miniport.dma:Nothing", "no class 'Nothing'"),
        ("hba.miniport.dma:DmaFault", "not a class derived"),
        ("hba.miniport.dma:MAXIMUM_ELEMENTS", "not a class derived"),
    ],
)
def test_bad_names_say_what_is_wrong(name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        miniport_class(name)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import no_such_thing_at_all\n", "needs 'no_such_thing_at_all'"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("def f(:\n", "SyntaxError"),
        (
            "from hba.miniport.base import Miniport\n"
            "class Mine(Miniport):\n    def __init__(self, x: int) -> None: ...\n",
            "takes no arguments",
        ),
    ],
)
def test_modules_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, what: str) -> None:
    (tmp_path / f"mine_{abs(hash(source))}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=what):
        load_miniport(f"mine_{abs(hash(source))}:Mine", Chip(AnsweringBus(), Memory()))
