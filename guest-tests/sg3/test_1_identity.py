"""Who the disk is and what it can do: INQUIRY, its pages, capacity, LUNs, operation codes."""

from __future__ import annotations

import sg

# Vital product data pages SPC-5 and SBC-4 make mandatory for a disk, and those of a thin one.
MANDATORY_PAGES = {0x00, 0x83, 0xB0, 0xB1}
# Commands that are mandatory for a disk (SBC-4 table "Commands for direct access block devices").
MANDATORY_COMMANDS = {
    "Format Unit", "Inquiry", "Log sense", "Mode select(10)", "Mode sense(10)", "Read(10)", "Read(16)",
    "Read capacity(10)", "Read capacity(16)", "Report luns", "Report supported operation codes", "Request Sense",
    "Test Unit Ready", "Write(10)", "Write(16)",
}  # fmt: skip


def test_inquiry(disk):
    said = sg.run("sg_inq", disk.generic)
    assert f"Vendor identification: {disk.expected['vendor']}" in said
    assert f"Product identification: {disk.expected['product']}" in said
    assert disk.expected["serial"] in sg.run("sg_inq", "--page=sn", disk.generic)
    assert "Peripheral device type: disk" in said
    assert "Resp_data_format=2" in said and "CmdQue=1" in said


def test_every_page_it_announces(disk):
    announced = sg.run_binary("sg_vpd", "--raw", "--page=0", disk.generic)
    assert announced[0] == 0x00 and announced[1] == 0x00
    length = int.from_bytes(announced[2:4], "big")
    pages = list(announced[4 : 4 + length])
    assert pages == sorted(set(pages)) and set(pages) >= MANDATORY_PAGES
    for page in pages:
        raw = sg.run_binary("sg_vpd", "--raw", f"--page={page:#x}", disk.generic)
        assert raw[1] == page
        assert len(raw) == 4 + int.from_bytes(raw[2:4], "big"), f"page {page:02x}h is not as long as it says"
        decoded = sg.run("sg_vpd", f"--page={page:#x}", disk.generic)
        assert "VPD page" in decoded and "unable to decode" not in decoded.lower(), decoded
    sg.run("sg_vpd", "--force", "--page=0xb9", disk.generic, code=sg.ILLEGAL_REQUEST)


def test_the_pages_agree_with_the_disk(disk, blocks):
    block_size = disk.expected["block_size"]
    assert disk.expected["serial"] in sg.run("sg_vpd", "--page=sn", disk.generic)
    limits = sg.ask("sg_vpd", "--page=bl", disk.generic)["block_limits_vpd_page"]
    assert limits["maximum_transfer_length"] * block_size >= 1 << 20
    assert limits["maximum_unmap_lba_count"] > 0 and limits["maximum_unmap_block_descriptor_count"] > 0
    assert limits["optimal_unmap_granularity"] * block_size % 4096 == 0
    provisioning = sg.run("sg_vpd", "--page=lbpv", disk.generic)
    for flag in ("LBPU=1", "LBPWS=1", "LBPWS10=1", "Provisioning type: thin provisioned"):
        assert flag in provisioning
    identities = sg.run("sg_vpd", "--page=di", disk.generic)
    assert "designator type: NAA" in identities and "Relative target port: 0x1" in identities


def test_capacity(disk, blocks):
    block_size = disk.expected["block_size"]
    short = sg.run("sg_readcap", disk.generic)
    assert f"Number of logical blocks={blocks}" in short
    assert f"Logical block length={block_size} bytes" in short
    long = sg.ask("sg_readcap", "--long", disk.generic)["read_capacity_16_parameter_data"]
    assert long["returned_logical_block_address"] == blocks - 1
    assert long["logical_block_length_in_bytes"] == block_size
    assert long["lbpme"] == 1 and long["lbprz"] == 1


def test_luns(experiment, disk):
    listed = sg.ask("sg_luns", disk.generic)["report_luns_parameter_data"]["lun_list"]
    found = sorted(int(entry["lun"].replace(" ", "")[:4], 16) for entry in listed)
    # Peripheral device addressing (SAM-5): the LUN in the second byte. LUN 0 is always there.
    assert found == sorted({0} | {unit["lun"] for unit in experiment["disks"] if unit["target"] == disk.target})


def test_operation_codes(disk):
    listed = sg.ask("sg_opcodes", disk.generic)["all_command_descriptor"]
    names = {entry["name"] for entry in listed}
    assert names >= MANDATORY_COMMANDS, MANDATORY_COMMANDS - names
    # The one-command form says the same of each.
    for entry in listed:
        code = entry["operation_code"]
        if entry["servactv"]:
            code += f",{int(entry['service_action'], 16)}"
        said = sg.run("sg_opcodes", f"--opcode={code}", disk.generic)
        assert "Command is supported [conforming to SCSI standard]" in said, said
        usage = next(line for line in said.splitlines() if "Usage data:" in line).split(":")[1].split()
        assert len(usage) == entry["cdb_length"], said
        assert int(usage[0], 16) == int(entry["operation_code"], 16), said
    # With time-outs, and what is not there.
    assert "timeout" in sg.run("sg_opcodes", "--rctd", "--opcode=0x28", disk.generic).lower()
    assert "NOT supported" in sg.run("sg_opcodes", "--opcode=0xe7", disk.generic)


def test_task_management_functions(disk):
    said = sg.run("sg_opcodes", "--tmf", disk.generic)
    assert "Abort task" in said and "Logical unit reset" in said


def test_request_sense(disk):
    assert "No Sense" in sg.run("sg_requests", disk.generic)
    assert "No Sense" in sg.run("sg_requests", "--desc", disk.generic)


def test_target_port_group(disk):
    assert "active/optimized" in sg.run("sg_rtpg", "--decode", disk.generic)
