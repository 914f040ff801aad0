"""hba.config.load: a file to a configuration, and what only shows between keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from hba.config.load import load, parse
from hba.config.model import Config
from hba.errors import ConfigError
from hba.rules import RULES

FILE = Path("/some/where/hba.toml")
ONE = '[[adapter]]\ntype = "pvscsi"\n'


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HBA_RUNTIME_DIR", "/run/test-hba")


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    return str(caught.value).splitlines()


def checked(text: str) -> Config:
    return parse(text, FILE)


def test_defaults_name_and_socket() -> None:
    first, named, third = checked(ONE + ONE + 'name = "left"\n' + ONE).adapters
    assert (first.name, named.name, third.name) == ("pvscsi0", "left", "pvscsi2")
    assert first.socket == "/run/test-hba/pvscsi0.sock"
    assert (first.port, first.miniport, first.verifier.level, first.engine) == ("storport", "dma", "report", "native")


def test_relative_paths_are_relative_to_the_file() -> None:
    config = checked(ONE + 'socket = "run/a.sock"\n')
    assert config.adapters[0].socket == "/some/where/run/a.sock"
    assert config.directory == Path("/some/where")


def test_an_error_names_file_line_key_and_what_was_expected() -> None:
    assert errors(ONE + 'port = "skuzzy"\n[adapter.pci]\nmsix = "yes"\n') == [
        '/some/where/hba.toml:3: adapter[0].port: expected one of "scsiport", "storport", got "skuzzy"',
        '/some/where/hba.toml:5: adapter[0].pci.msix: expected true or false, got "yes"',
    ]


def test_names_sockets_and_addresses_are_unique() -> None:
    unit = '[[adapter.lun]]\nstorage = { kind = "memory", size = "1M" }\n'
    found = errors(
        ONE
        + 'name = "a"\nsocket = "s"\n'
        + unit
        + unit.replace("storage", "target = 1\nstorage")
        + unit
        + ONE
        + 'name = "a"\nsocket = "s"\n'
    )
    assert [line.split(": ", 1)[1] for line in found] == [
        "adapter[0].lun[2]: target 0 lun 0 is taken by adapter[0].lun[0]; give each unit its own address",
        'adapter[1].name: "a" is taken by adapter[0]; choose another',
        'adapter[1].socket: "/some/where/s" is taken by adapter[0]; choose another',
    ]


def test_options_of_the_other_port_model_are_refused() -> None:
    (line,) = errors(ONE + 'port = "scsiport"\n[adapter.storport]\n')
    assert line.endswith(
        'adapter[0].storport: options of storport, but port = "scsiport"; change `port` or remove this table'
    )


def test_the_library_of_the_other_engine_is_refused() -> None:
    (line,) = errors(ONE + 'engine_library = "lib.so"\n')
    assert line.endswith(
        'adapter[0].engine_library: only for engine = "libvfio-user", but engine = "native"; '
        "change `engine` or remove this key"
    )
    (line,) = errors(ONE + 'engine = "libvfiouser"\nengine_library = "lib.so"\n')
    assert 'expected one of "native", "libvfio-user"' in line or '"libvfio-user"' in line


def test_the_file_of_a_library_is_relative_to_the_configuration() -> None:
    config = checked(ONE + 'engine = "libvfio-user"\nengine_library = "lib/vfu.so"\n')
    assert config.adapters[0].engine_library == str(config.directory / "lib/vfu.so")
    assert checked(ONE).adapters[0].engine_library == ""


def test_rules_that_do_not_exist_are_refused() -> None:
    (line,) = errors(ONE + '[adapter.verifier.rules]\ngd-01 = "off"\n')
    assert 'no such rule; did you mean "GD-01"?' in line


def test_rules_that_exist_are_taken() -> None:
    rule = next(iter(RULES))
    config = checked(ONE + f'[adapter.verifier.rules]\n{rule} = "warning"\n')
    assert config.adapters[0].verifier.rules == {rule: "warning"}


def test_a_target_beyond_the_adapters_limit_is_refused() -> None:
    (line,) = errors(
        ONE
        + '[adapter.pvscsi]\nmax_targets = 4\n[[adapter.lun]]\ntarget = 4\nstorage = { kind = "memory", size = "1M" }\n'
    )
    assert "expected a target below adapter[0].pvscsi.max_targets = 4, got 4" in line


@pytest.mark.parametrize("miniport", ["mine", "a b:C", "mod:", ":C", "mod:1"])
def test_a_miniport_is_dma_or_module_and_class(miniport: str) -> None:
    (line,) = errors(ONE + f'miniport = "{miniport}"\n')
    assert 'expected "dma", "module:Class" or "module:driver_entry"' in line


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "x" * 41, "a b"])
def test_a_name_is_a_file_name(name: str) -> None:
    (line,) = errors(ONE + f'name = "{name}"\n')
    assert "adapter[0].name: expected a string" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "adapter: missing; expected a list"),
        ("adapter = []", "adapter: empty"),
        ('[adapter]\ntype = "pvscsi"', "adapter: expected a list of tables: write [[adapter]] instead of [adapter]"),
        ("adapter = [", "not valid TOML"),
        ("[[adapter]]\n", "adapter[0].type: missing"),
    ],
)
def test_files_that_are_wrong_as_a_whole(text: str, message: str) -> None:
    assert message in "\n".join(errors(text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 0"):
        load(binary)
    huge = tmp_path / "huge.toml"
    with huge.open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        load(huge)


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/kmsg-none/x", "/proc/self/mem"])
def test_files_that_are_none(path: str) -> None:
    with pytest.raises(ConfigError, match=r"larger than 4 MiB|Not a directory|No such file|Input/output error"):
        load(path)


def test_toml_is_1_1_whatever_is_installed() -> None:
    (adapter,) = parse(
        """
[[adapter]]
type = "pvscsi"
[[adapter.lun]]
storage = {
    kind = "memory",
    size = "64M",  # a comment
}
""",
        Path("x.toml"),
    ).adapters
    assert len(adapter.lun) == 1


def test_an_older_parser_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def old(text: str) -> dict[str, object]:
        raise tomli.TOMLDecodeError("newline", text, 0)

    monkeypatch.setattr(tomli, "loads", old)
    with pytest.raises(ConfigError, match=r"install tomli 2\.4 or later"):
        parse("a = {\n}", Path("x.toml"))
