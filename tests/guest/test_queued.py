"""A miniport with a real driver's structure under a real guest, for both port models; and several MSI-X vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.lab.config import to_toml
from tests.guest.test_smoke import run

pytestmark = pytest.mark.qemu

DISK = 64 << 20  # what the suite asks for
MINIPORTS = {"storport": "QueuedMiniport", "scsiport": "QueuedScsiMiniport"}


@pytest.mark.parametrize(
    ("port_model", "pci"),
    [("storport", {"msix": True, "msix_vectors": 8}), ("scsiport", {"msi": False})],
    ids=["storport-msix", "scsiport-intx"],
)
def test_the_smoke_suite_passes(tmp_path: Path, port_model: str, pci: dict[str, object]) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(DISK)
    adapter = {
        "type": "pvscsi",
        "name": f"queued-{port_model}",
        "socket": str(tmp_path / "adapter.sock"),
        "port": port_model,
        "miniport": f"hba.miniport.examples.queued:{MINIPORTS[port_model]}",
        "pci": pci,
        "lun": [{"storage": {"kind": "file", "path": str(disk)}}],
    }
    config = tmp_path / "config.toml"
    config.write_text("[[adapter]]\n" + "".join(f"{key} = {to_toml(value)}\n" for key, value in adapter.items()))
    run(tmp_path, tmp_path / "report.xml", "--config", str(config), "--fail-on", "violation")
