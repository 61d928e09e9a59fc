"""Scalars in TensorBoard's event files, read without TensorFlow: records with checksums, and the few fields that matter.

found = read_events(Path("runs/a/events.out.tfevents.123"))
found.scalars["loss/D"]                  # [(step, value), ...] in the order of the file
found.trouble                            # "" or where and why reading stopped
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LARGEST = 65536
"""Bytes of a record beyond which it holds pictures or a graph, not scalars: its content is passed over."""
FLOAT, DOUBLE = 1, 2  # DataType in tensorflow/core/framework/types.proto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass
class Events:
    """What an event file holds.

    Attributes:
        scalars: tag -> (step, value) in the order of the file.
        records: whole records that were read; ``passed`` of them too large for scalars, their content not looked at.
        trouble: where reading stopped before the end and why; empty where it did not.
    """

    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    records: int = 0
    passed: int = 0
    trouble: str = ""


class Damaged(ValueError):
    """Bytes that are not what the format says."""


def read_events(path: Path) -> Events:
    """The scalars of one event file; everything before the first damaged record is kept.

    A record is its length (uint64), the masked CRC of those 8 bytes, its content and the content's masked CRC, all little-endian
    (tensorflow/core/lib/io/record_writer.h). Checksums are compared for every length and for every record that is looked at.
    """
    content = path.read_bytes()
    events = Events()
    starts, trouble = _records(content)
    sums = _checksums(content, [(start, stop) for start, stop in starts if stop - start <= LARGEST])
    for start, stop in starts:
        if stop - start > LARGEST:
            events.passed += 1
        else:
            (expected,) = struct.unpack_from("<I", content, stop)
            if sums[start] != expected:
                trouble = f"record {events.records + 1} at byte {start - 12} has a wrong checksum"
                break
            try:
                _take(content[start:stop], events)
            except (Damaged, struct.error) as error:
                trouble = f"record {events.records + 1} at byte {start - 12} is no event ({error})"
                break
        events.records += 1
    events.trouble = trouble
    return events


def _records(content: bytes) -> tuple[list[tuple[int, int]], str]:
    """(start and end of every record's content, why they end before the file does)."""
    found: list[tuple[int, int]] = []
    headers: list[tuple[int, int]] = []
    place = 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        if length > len(content) - place - 16:
            break
        headers.append((place, place + 8))
        found.append((place + 12, place + 12 + length))
        place += 16 + length
    sums = _checksums(content, headers)
    for number, (start, stop) in enumerate(headers):
        if sums[start] != struct.unpack_from("<I", content, stop)[0]:
            return found[:number], f"record {number + 1} at byte {start} has a wrong checksum"
    if place < len(content):
        return found, f"record {len(found) + 1} at byte {place} is cut off or has an impossible length"
    return found, ""


def _table() -> NDArray[np.uint32]:
    """CRC of every byte for the reflected Castagnoli polynomial 0x82F63B78 (RFC 3720, sec. 12.1)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


def masked_crc(content: bytes) -> int:
    """CRC-32C, rotated right by 15 bits plus a constant: what a record is followed by."""
    return _checksums(content, [(0, len(content))])[0]


def _checksums(content: bytes, spans: list[tuple[int, int]]) -> dict[int, int]:
    """Start -> masked CRC of each span, side by side, a byte at a time; the longest come first, so that those that end drop off."""
    table, data = _table(), np.frombuffer(content, np.uint8)
    ordered = sorted(spans, key=lambda span: span[0] - span[1])
    starts = np.asarray([start for start, _ in ordered], np.int64)
    lengths = np.asarray([stop - start for start, stop in ordered], np.int64)
    crc = np.full(len(ordered), 0xFFFFFFFF, np.uint32)
    for offset in range(int(lengths.max(initial=0))):
        live = int(np.searchsorted(-lengths, -offset, side="left"))
        crc[:live] = table[(crc[:live] ^ data[starts[:live] + offset]) & 0xFF] ^ (crc[:live] >> np.uint32(8))
    plain = (crc ^ np.uint32(0xFFFFFFFF)).astype(np.uint64)
    masked = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return dict(zip(starts.tolist(), masked.tolist(), strict=True))


def _take(content: bytes, events: Events) -> None:
    """Add the scalars of one ``Event`` (tensorflow/core/util/event.proto: step = 2, summary = 5)."""
    step, values = 0, []
    for number, value in _fields(content):
        if number == 2 and isinstance(value, int):
            step = value - 2**64 if value >= 2**63 else value
        elif number == 5 and isinstance(value, bytes):
            values += [part for key, part in _fields(value) if key == 1 and isinstance(part, bytes)]
    for part in values:
        tag, scalar = _scalar(part)
        if scalar is not None:
            events.scalars.setdefault(tag, []).append((step, scalar))


def _scalar(content: bytes) -> tuple[str, float | None]:
    """Tag and number of a ``Summary.Value`` (summary.proto: tag = 1, simple_value = 2, tensor = 8)."""
    tag, scalar = "", None
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8", "replace")
        elif number == 2 and isinstance(value, float):
            scalar = value
        elif number == 8 and isinstance(value, bytes):
            scalar = _tensor(value)
    return tag, scalar


def _tensor(content: bytes) -> float | None:
    """The one number of a ``TensorProto`` (tensor.proto: dtype = 1, tensor_content = 4, float_val = 5, double_val = 6)."""
    kind, raw = 0, b""
    for number, value in _fields(content):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number in (4, 5, 6):
            raw = value if isinstance(value, bytes) else struct.pack("<f" if number == 5 else "<d", value)
    code = {FLOAT: "<f", DOUBLE: "<d"}.get(kind, "")
    if not code or len(raw) != struct.calcsize(code):
        return None
    return float(struct.unpack(code, raw)[0])


def _fields(content: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(field number, value) of a message in protobuf's wire format.

    Raises:
        Damaged: a length beyond the message's end, or a wire type that is not in use.
    """
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = _varint(content, place)
            yield number, value
            continue
        size = 8 if wire == FIXED64 else 4
        if wire == BYTES:
            size, place = _varint(content, place)
        elif wire not in (FIXED64, FIXED32):
            raise Damaged(f"wire type {wire}")
        if size > len(content) - place:
            raise Damaged("a field is longer than its message")
        part, place = content[place : place + size], place + size
        yield number, part if wire == BYTES else float(struct.unpack("<d" if wire == FIXED64 else "<f", part)[0])


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """(number, where it ends): 7 bits a byte, the least significant first, at most 10 bytes."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise Damaged("a number is cut off")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise Damaged("a number is longer than 10 bytes")
