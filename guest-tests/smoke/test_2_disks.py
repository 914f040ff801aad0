"""The disks are the ones the host described, no fewer and no more."""

from __future__ import annotations

import subprocess


def test_exactly_the_disks_of_the_host_are_there(experiment, adapters):
    found = [(disk.target, disk.lun) for adapter in adapters for disk in adapter.disks()]
    assert sorted(found) == sorted((disk["target"], disk["lun"]) for disk in experiment["disks"])


def test_size_and_block_size(disks):
    for disk in disks:
        assert disk.size == disk.expected["size"], disk
        assert disk.block_size == disk.expected["block_size"], disk


def test_write_protection(disks):
    for disk in disks:
        assert disk.read_only == disk.expected["read_only"], disk


def test_vendor_and_product(disks):
    for disk in disks:
        if disk.expected["vendor"]:
            assert disk.inquiry("vendor") == disk.expected["vendor"], disk
        if disk.expected["product"]:
            assert disk.inquiry("model") == disk.expected["product"], disk


def test_serial_number(disks):
    for disk in disks:
        if disk.expected["serial"]:
            page = subprocess.run(["sg_vpd", "--page=sn", disk.node], capture_output=True, text=True, check=True)
            assert page.stdout.split(":")[-1].strip() == disk.expected["serial"], disk
            assert disk.expected["serial"] in disk.udev.properties.get("ID_SERIAL", "") or disk.udev.properties.get(
                "ID_WWN"
            ), disk
