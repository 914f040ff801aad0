"""Sense data: the named conditions a device server reports, and their two formats (SPC-5 "Sense data").

A condition is one int, 0xKKCCQQ: sense key, additional sense code, qualifier. A handler raises
`CheckCondition(condition, ...)`; the device server turns it into bytes in the format the control mode page asks for.
"""

from __future__ import annotations

import struct

# -- sense keys ---------------------------------------------------------------------------------------------------
KEY_NO_SENSE = 0x0
KEY_RECOVERED_ERROR = 0x1
KEY_NOT_READY = 0x2
KEY_MEDIUM_ERROR = 0x3
KEY_HARDWARE_ERROR = 0x4
KEY_ILLEGAL_REQUEST = 0x5
KEY_UNIT_ATTENTION = 0x6
KEY_DATA_PROTECT = 0x7
KEY_COPY_ABORTED = 0xA
KEY_ABORTED_COMMAND = 0xB
KEY_MISCOMPARE = 0xE

# -- conditions: 0xKKCCQQ -------------------------------------------------------------------------------------------
NO_SENSE = 0x000000

NOT_READY_CAUSE_NOT_REPORTABLE = 0x020400
NOT_READY_BECOMING_READY = 0x020401
NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x020402
NOT_READY_FORMAT_IN_PROGRESS = 0x020404
NOT_READY_SANITIZE_IN_PROGRESS = 0x02041B
NOT_READY_COMMUNICATION_FAILURE = 0x020800
NOT_READY_MEDIUM_NOT_PRESENT = 0x023A00
NOT_READY_TRAY_CLOSED = 0x023A01
NOT_READY_TRAY_OPEN = 0x023A02

WRITE_ERROR = 0x030C00
UNRECOVERED_READ_ERROR = 0x031100
MEDIUM_FORMAT_CORRUPTED = 0x033100
SANITIZE_COMMAND_FAILED = 0x033103
FORMAT_COMMAND_FAILED = 0x033101

INTERNAL_TARGET_FAILURE = 0x044400

PARAMETER_LIST_LENGTH_ERROR = 0x051A00
INVALID_COMMAND_OPERATION_CODE = 0x052000
LBA_OUT_OF_RANGE = 0x052100
INVALID_FIELD_IN_CDB = 0x052400
LOGICAL_UNIT_NOT_SUPPORTED = 0x052500
INVALID_FIELD_IN_PARAMETER_LIST = 0x052600
PARAMETER_VALUE_INVALID = 0x052602
INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x052604
TOO_MANY_TARGET_DESCRIPTORS = 0x052606
UNSUPPORTED_TARGET_DESCRIPTOR_TYPE = 0x052607
TOO_MANY_SEGMENT_DESCRIPTORS = 0x052608
UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE = 0x052609
INLINE_DATA_LENGTH_EXCEEDED = 0x05260B
COMMAND_SEQUENCE_ERROR = 0x052C00
INSUFFICIENT_REGISTRATION_RESOURCES = 0x055504
INVALID_MESSAGE_ERROR = 0x054900
MEDIUM_REMOVAL_PREVENTED = 0x055302
ILLEGAL_MODE_FOR_THIS_TRACK = 0x056400
SAVING_PARAMETERS_NOT_SUPPORTED = 0x053900
INCOMPATIBLE_MEDIUM = 0x053000
CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT = 0x053002
UNSUPPORTED_ENCLOSURE_FUNCTION = 0x053501

NOT_READY_TO_READY_CHANGE = 0x062800
RESET_OCCURRED = 0x062900
POWER_ON_OCCURRED = 0x062901
BUS_RESET_OCCURRED = 0x062902
BUS_DEVICE_RESET_OCCURRED = 0x062903
MODE_PARAMETERS_CHANGED = 0x062A01
LOG_PARAMETERS_CHANGED = 0x062A02
RESERVATIONS_PREEMPTED = 0x062A03
RESERVATIONS_RELEASED = 0x062A04
REGISTRATIONS_PREEMPTED = 0x062A05
CAPACITY_DATA_HAS_CHANGED = 0x062A09
TIMESTAMP_CHANGED = 0x062A10
INQUIRY_DATA_HAS_CHANGED = 0x063F03
REPORTED_LUNS_DATA_HAS_CHANGED = 0x063F0E
THIN_PROVISIONING_THRESHOLD_REACHED = 0x063807
OPERATOR_MEDIUM_REMOVAL_REQUEST = 0x065A01

WRITE_PROTECTED = 0x072700
SOFTWARE_WRITE_PROTECTED = 0x072702
SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x072707

COPY_ABORTED = 0x0A0000  # no additional sense: a segment does not fit its device
COPY_UNREACHABLE_TARGET = 0x0A0804
COPY_THIRD_PARTY_FAILURE = 0x0A0D01

GUARD_CHECK_FAILED = 0x0B1001
APPLICATION_TAG_CHECK_FAILED = 0x0B1002
REFERENCE_TAG_CHECK_FAILED = 0x0B1003

MISCOMPARE_DURING_VERIFY = 0x0E1D00

_FIXED = struct.Struct(">BBBIB4sBBB3s")
_INFORMATION = struct.Struct(">BBBBQ")
_MAX_FIXED_INFORMATION = 0xFFFFFFFF


class CheckCondition(Exception):
    """The command ends with CHECK CONDITION.

    `information`  the INFORMATION field (an LBA, an offset), or None when it is not valid.
    `specific`     the three sense-key specific bytes (field pointer, progress), see `field` and `progress`.
    """

    def __init__(self, condition: int, information: int | None = None, specific: bytes = b"") -> None:
        super().__init__(f"sense 0x{condition:06x}")
        self.condition = condition
        self.information = information
        self.specific = specific


def field(byte: int, bit: int | None = None, in_cdb: bool = True) -> bytes:
    """Sense-key specific bytes that point at the field in error (SPC-5 "Field pointer")."""
    first = 0x80 | (0x40 if in_cdb else 0) | (0 if bit is None else 0x08 | bit)
    return bytes((first, byte >> 8 & 0xFF, byte & 0xFF))


def progress(fraction: int) -> bytes:
    """Sense-key specific bytes with a progress indication; `fraction` of 65536."""
    return b"\x80" + min(max(fraction, 0), 0xFFFF).to_bytes(2, "big")


def invalid_cdb(byte: int, bit: int | None = None) -> CheckCondition:
    return CheckCondition(INVALID_FIELD_IN_CDB, specific=field(byte, bit))


def invalid_parameter(byte: int, bit: int | None = None) -> CheckCondition:
    return CheckCondition(INVALID_FIELD_IN_PARAMETER_LIST, specific=field(byte, bit, in_cdb=False))


def fixed_sense(condition: int, information: int | None = None, specific: bytes = b"") -> bytes:
    """18 bytes, response code 70h. An INFORMATION that does not fit into 32 bits is left out, as SPC says."""
    valid = information is not None and information <= _MAX_FIXED_INFORMATION
    return _FIXED.pack(
        0xF0 if valid else 0x70,
        0,
        condition >> 16,
        information if valid and information is not None else 0,
        10,
        b"",
        condition >> 8 & 0xFF,
        condition & 0xFF,
        0,
        specific,
    )


def descriptor_sense(condition: int, information: int | None = None, specific: bytes = b"") -> bytes:
    """Response code 72h with an information and a sense-key specific descriptor where there is something to say."""
    body = b""
    if information is not None:
        body += _INFORMATION.pack(0x00, 0x0A, 0x80, 0, information)
    if specific:
        body += bytes((0x02, 0x06, 0, 0)) + specific + b"\x00"
    return bytes((0x72, condition >> 16, condition >> 8 & 0xFF, condition & 0xFF, 0, 0, 0, len(body))) + body


def condition_of(sense: bytes) -> int:
    """The condition (0xKKCCQQ) in sense data of either format; 0 when there is none."""
    if len(sense) >= 4 and sense[0] & 0x7F in (0x72, 0x73):
        return (sense[1] & 0x0F) << 16 | sense[2] << 8 | sense[3]
    if len(sense) >= 14 and sense[0] & 0x7F in (0x70, 0x71):
        return (sense[2] & 0x0F) << 16 | sense[12] << 8 | sense[13]
    return 0
