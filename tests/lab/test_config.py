"""Configurations the lab makes or changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.config.load import parse
from hba.errors import ConfigError
from hba.lab import config

SCALARS = st.one_of(
    st.booleans(),
    st.integers(min_value=-(2**62), max_value=2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@settings(max_examples=100)
@given(
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
        ),
        max_leaves=8,
    )
)
def test_toml_comes_back_as_it_was(value: object) -> None:
    assert tomli.loads(f"key = {config.to_toml(value)}") == {"key": value}


@pytest.mark.parametrize("port_model", ["scsiport", "storport"])
def test_the_labs_own_configuration_is_valid(tmp_path: Path, port_model: str) -> None:
    text = config.one_disk(tmp_path, tmp_path / 'a "disk".img', port_model)
    checked = parse(text, tmp_path / "config.toml")
    (adapter,) = checked.adapters
    assert adapter.port == port_model
    assert Path(adapter.socket).parent == tmp_path
    assert len(adapter.lun) == 1


def test_another_engine_for_a_users_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[adapter]]\ntype = "pvscsi"\nengine = "libvfio-user"\nengine_library = "vfu.so"\n')
    text = config.with_other(path, engine="libvfio-user", port_model="scsiport")
    (adapter,) = parse(text, tmp_path / "elsewhere" / "made.toml").adapters
    assert (adapter.engine, adapter.engine_library) == ("libvfio-user", str(tmp_path / "vfu.so"))
    assert adapter.port == "scsiport"
    (adapter,) = parse(config.with_other(path, engine="native"), tmp_path / "made.toml").adapters
    assert (adapter.engine, adapter.engine_library, adapter.port) == ("native", "", "storport")


def test_another_port_model_for_a_users_configuration(tmp_path: Path) -> None:
    given_ = tmp_path / "mine.toml"
    given_.write_text(
        '[[adapter]]\ntype = "pvscsi"\nname = "one"\nport = "scsiport"\n[adapter.scsiport]\n'
        '[[adapter.lun]]\nstorage = { kind = "overlay", base = { kind = "file", path = "golden.img" } }\n'
        '[[adapter]]\ntype = "pvscsi"\nname = "two"\n'
        '[[adapter.lun]]\nstorage = { kind = "memory", size = "64M" }\n'
    )
    checked = parse(config.with_other(given_, port_model="storport"), tmp_path / "elsewhere" / "made.toml")
    assert [(adapter.name, adapter.port) for adapter in checked.adapters] == [("one", "storport"), ("two", "storport")]
    base = checked.adapters[0].lun[0].storage.base  # type: ignore[union-attr]
    assert base.path == str(tmp_path / "golden.img")


@pytest.mark.parametrize("text", ["", "[[adapter]", "\0"])
def test_an_unreadable_configuration_is_the_servers_to_refuse(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    try:
        config.with_other(path, port_model="storport")
    except ConfigError as error:
        assert str(path) in str(error)


def test_a_missing_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        config.with_other(tmp_path / "nothing.toml", port_model="storport")
