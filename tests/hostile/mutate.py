"""Seeded damage that knows the formats: opcodes, lengths, JSON fields, zip headers, names.

mutate(path.read_bytes(), random.Random(7))     # bytes that are nearly a checkpoint
"""

from __future__ import annotations

import gzip
import io
import json
import pickletools
import random
import struct
import zipfile

from hostile.samples import LEGACY_PICKLES, with_header, zipped

_EXTREMES = [0, 1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1]
_VALUES: list[object] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, 0.5, "", "x", "F32", "BF16", "F8_E4M3", "\u202e\x1b[31m", [], {},
    [[]], [-1], [2**62, 2**62], {"as_int": -1}, {"as_int": 2**62}, {"a": {}},
]  # fmt: skip
_GLOBALS = [
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"ccollections\nOrderedDict\n", b"cbuiltins\nset\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch.storage\n_load_from_bytes\n", b"ctorch\nSize\n", b"ctorch\nFloatStorage\n", b"ctorch\nbfloat16\n",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n",
    b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n", b"cdnnlib.util\nEasyDict\n", b"ctorch._utils\n_rebuild_qtensor\n",
    b"ctorch._utils\n_rebuild_sparse_tensor\n", b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch.nn.modules.module\nModule\n",
]  # fmt: skip
_PIECES = [
    b"N", b"}", b"]", b")", b"(", b"0", b"1", b"2", b"e", b"s", b"u", b"t", b"R", b"b", b"\x81", b"\x92", b"\x85", b"\x86", b"\x87",
    b"\x8f", b"\x90", b"\x91", b"\x93", b"\x94", b"a", b"d", b"l", b"o", b"Q", b"h\x00", b"j\x00\x00\x00\x00", b"q\x01", b"K\x01",
    b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"X\x01\x00\x00\x00a", b"\x8c\x01a", b"\x82\x01", b"G" + b"\x7f" * 8,
    b"B\x04\x00\x00\x00abcd", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a", b"\x97", b"\x98",
    b"Pname\n", b"I1\n", b"L9999999999999999999L\n", b"S'a'\n", b"(icollections\nOrderedDict\n", *_GLOBALS,
]  # fmt: skip


def mutate(raw: bytes, chance: random.Random) -> bytes:
    """``raw`` damaged in one to four places, half of the time with its structure kept valid around them."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        try:
            raw = _structured(raw, chance) if chance.random() < 0.7 else _bytes(raw, chance)
        except Exception:  # too damaged already to be parsed by any of the libraries
            raw = _bytes(raw, chance)
    return raw


def _structured(raw: bytes, chance: random.Random) -> bytes:
    if raw[:2] == b"PK":
        return _zip(raw, chance) if chance.random() < 0.8 else _zip_fields(raw, chance)
    if raw[:2] == b"\x1f\x8b":
        return gzip.compress(mutate(gzip.decompress(raw), chance), 1, mtime=0)
    if raw[8:9] == b"{":
        return _safetensors(raw, chance)
    if raw[:1] == b"\x80":
        return _pickle(raw, chance)
    return _bytes(raw, chance)


def _bytes(raw: bytes, chance: random.Random) -> bytes:
    data = bytearray(raw)
    where = chance.randrange(len(data) + 1)
    kind = chance.randrange(7)
    if kind == 0 and data:
        data[where % len(data)] ^= 1 << chance.randrange(8)
    elif kind == 1 and data:
        data[where % len(data)] = chance.choice((0, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    elif kind == 2:
        del data[where:]
    elif kind == 3:
        del data[where : where + chance.choice((1, 2, 4, 8, 100))]
    elif kind == 4:
        data[where:where] = chance.randbytes(chance.choice((1, 2, 4, 8, 100)))
    elif kind == 5:
        size = chance.choice((1, 2, 4, 8))
        data[where : where + size] = (chance.choice(_EXTREMES) % 2 ** (8 * size)).to_bytes(size, "little")
    else:
        other = chance.randrange(len(data) + 1)
        data[where:where] = data[other : other + chance.randrange(200)]
    return bytes(data)


def _pickle(raw: bytes, chance: random.Random) -> bytes:
    """One instruction of one of the pickles in a row replaced, dropped, doubled, moved or put in."""
    parts: list[bytes] = []
    rest = raw
    for _ in range(LEGACY_PICKLES):
        places = [position for _op, _arg, position in pickletools.genops(rest) if position is not None]
        end = places[-1] + 1
        parts.append(rest[:end])
        rest = rest[end:]
        if rest[:1] != b"\x80":
            break
    chosen = (
        max(range(len(parts)), key=lambda i: len(parts[i])) if chance.random() < 0.7 else chance.randrange(len(parts))
    )
    parts[chosen] = instructions(parts[chosen], chance)
    return b"".join(parts) + rest


def instructions(pickled: bytes, chance: random.Random) -> bytes:
    """``pickled`` with one instruction changed; frames are dropped, as their lengths would no longer fit."""
    ops = [(op.name, position) for op, _arg, position in pickletools.genops(pickled) if position is not None]
    ends = [position for _name, position in ops[1:]] + [len(pickled)]
    codes = [pickled[a:b] for (name, a), b in zip(ops, ends, strict=True) if name != "FRAME"]
    where = chance.randrange(1, len(codes))
    kind = chance.randrange(7)
    if kind == 0:
        codes[where] = chance.choice(_PIECES)
    elif kind == 1:
        del codes[where]
    elif kind == 2:
        codes.insert(where, codes[where])
    elif kind == 3:
        codes.insert(where, chance.choice(_PIECES))
    elif kind == 4:
        other = chance.randrange(1, len(codes))
        codes[where], codes[other] = codes[other], codes[where]
    elif kind == 5:
        numbers = [i for i, code in enumerate(codes) if code[:1] in b"KMJ\x8a"]
        if numbers:
            value = chance.choice([*_EXTREMES, -1, -(2**31), -(2**63)])
            codes[chance.choice(numbers)] = b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
    else:
        codes[where] = codes[where][:1] + _bytes(codes[where][1:], chance)
    return b"".join(codes)


def _safetensors(raw: bytes, chance: random.Random) -> bytes:
    size = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + size]
    if chance.random() < 0.2:
        return struct.pack("<Q", chance.choice(_EXTREMES)) + raw[8:]
    return with_header(_json(header, chance), raw[8 + size :])


def _json(raw: bytes, chance: random.Random) -> bytes:
    """One value anywhere in a JSON text replaced, dropped, renamed or doubled."""
    tree = json.loads(raw)
    if chance.random() < 0.1:
        return raw.replace(b":", b":" + chance.choice((b"[" * 3000, b"1e999,", b"NaN,", b"{")), 1)
    nodes: list[dict[str, object] | list[object]] = []
    todo: list[object] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            todo += node.values()
        elif isinstance(node, list):
            todo += node
        if isinstance(node, (dict, list)) and node:
            nodes.append(node)
    node = chance.choice(nodes)
    key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
    kind = chance.randrange(4)
    if kind == 0:
        del node[key]  # type: ignore[arg-type]  # key fits its node
    elif kind == 1 and isinstance(node, dict):
        node[str(chance.choice(_VALUES))[:50]] = node.pop(str(key), None)
    else:
        node[key] = chance.choice(_VALUES)  # type: ignore[index]  # as above
    return json.dumps(tree).encode()


def _zip(raw: bytes, chance: random.Random) -> bytes:
    """One member changed, renamed, dropped or doubled; checksums are those of the new bytes."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    heads = [n for n in names if n.endswith(("data.pkl", ".json", ".py", ".pt", ".pth"))] or names
    name = chance.choice(heads if chance.random() < 0.75 else names)
    kind = chance.randrange(10)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[
            chance.choice((name + "x", "../" + name, "/" + name, name.upper(), "data.pkl", "a/data.pkl", "x" * 300))
        ] = members.pop(name)
    elif kind == 2:
        members[name] = members[chance.choice(names)]
    else:
        members[name] = _member(name, members[name], chance)
    return zipped(members, chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _member(name: str, content: bytes, chance: random.Random) -> bytes:
    if name.endswith(".json"):
        return _json(content, chance)
    if name.endswith(".pkl") and chance.random() < 0.9:
        return instructions(content, chance)
    if name.endswith((".pt", ".pth")) and content:
        return mutate(content, chance)
    return _bytes(content, chance)


def _zip_fields(raw: bytes, chance: random.Random) -> bytes:
    """One field of a local header, of the directory or of its end set to an extreme."""
    data = bytearray(raw)
    signature, fields = chance.choice(
        (
            (b"PK\x03\x04", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
            (b"PK\x01\x02", ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4))),
            (b"PK\x05\x06", ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        )
    )
    places = [i for i in range(len(data)) if data.startswith(signature, i)]
    start = chance.choice(places)
    offset, size = chance.choice(fields)
    value = chance.choice([*_EXTREMES, chance.randrange(len(data))]) % 2 ** (8 * size)
    data[start + offset : start + offset + size] = value.to_bytes(size, "little")
    return bytes(data)
