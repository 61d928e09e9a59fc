"""Write the hostile files into a folder, with what may come of each.

python tests/hostile/make_corpus.py FOLDER          # FOLDER/corpus.json: {"reduce.pkl": "refused", …}
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import struct
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from hostile.attacks import archived_attacks, pickled_attacks, text
from hostile.samples import MAKERS, network, safetensors, saved, tarred, with_header, zipped

Files = Iterator[tuple[str, bytes]]
ENDED = 0.05  # of a file's length: the distance of truncations


def _zip_pickle(pickled: bytes, **more: bytes) -> bytes:
    return zipped({"a/data.pkl": pickled, "a/version": b"3\n", **{f"a/{name}": raw for name, raw in more.items()}})


def tensor(size: bytes, stride: bytes, numel: bytes = b"K\x04", offset: bytes = b"K\x00") -> bytes:
    """A pickle of {"w": a tensor} in a torch zip; the arguments are instructions."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + numel + b"tQ"
    rest = b"\x89ccollections\nOrderedDict\n)RtR"
    return (
        b"\x80\x02}"
        + text("w")
        + b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + offset
        + size
        + stride
        + rest
        + b"s."
    )


def shapes(_canaries: Path) -> Files:
    """Tensors that do not fit their storages."""
    huge, minus = b"\x8a\x08" + b"\xff" * 7 + b"\x0f", b"J\xff\xff\xff\xff"
    four = bytes(16)
    cases = {
        "huge_shape": tensor(huge + b"\x85", b"K\x01\x85"),
        "huge_expanded": tensor(b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85", b"K\x00\x85"),
        "huge_storage": tensor(b"K\x04\x85", b"K\x01\x85", numel=huge),
        "huge_both": tensor(huge + b"\x85", b"K\x01\x85", numel=huge),
        "product_overflow": tensor(b"(" + b"J\x00\x00\x00\x7f" * 8 + b"t", b"(" + b"K\x00" * 8 + b"t"),
        "negative_size": tensor(minus + b"\x85", b"K\x01\x85"),
        "negative_stride": tensor(b"K\x04\x85", minus + b"\x85", offset=b"K\x03"),
        "negative_offset": tensor(b"K\x02\x85", b"K\x01\x85", offset=minus),
        "negative_storage": tensor(b"K\x04\x85", b"K\x01\x85", numel=minus),
        "beyond_storage": tensor(b"K\x05\x85", b"K\x01\x85"),
        "beyond_by_offset": tensor(b"K\x04\x85", b"K\x01\x85", offset=b"K\x01"),
        "beyond_by_stride": tensor(b"K\x02\x85", b"K\x64\x85"),
        "float_size": tensor(b"G" + struct.pack(">d", 4.0) + b"\x85", b"K\x01\x85"),
        "text_size": tensor(text("4"), b"K\x01\x85"),
        "bool_size": tensor(b"\x88\x85", b"K\x01\x85"),
        "thousand_dimensions": tensor(b"(" + b"K\x01" * 1000 + b"t", b"(" + b"K\x01" * 1000 + b"t"),
        "strides_of_another_rank": tensor(b"K\x02K\x02\x86", b"K\x01\x85"),
        "short_storage": tensor(b"K\x08\x85", b"K\x01\x85", numel=b"K\x08"),
    }
    for name, pickled in cases.items():
        yield f"{name}.pt", zipped({"a/data.pkl": pickled, "a/data/0": four, "a/version": b"3\n"})
    yield (
        "quantised.pt",
        _zip_pickle(tensor(b"K\x04\x85", b"K\x01\x85").replace(b"_rebuild_tensor_v2", b"_rebuild_qtensor")),
    )
    yield (
        "unknown_storage.pt",
        _zip_pickle(tensor(b"K\x04\x85", b"K\x01\x85").replace(b"FloatStorage", b"OtherStorage")),
    )
    yield (
        "big_endian.pt",
        zipped({"a/data.pkl": tensor(b"K\x04\x85", b"K\x01\x85"), "a/data/0": four, "a/byteorder": b"big"}),
    )


def pickles(_canaries: Path) -> Files:
    """Pickles that cost time or memory, and those that are nearly none."""
    yield "deep_tuple.pkl", b"\x80\x02)" + b"\x85" * 100_000 + b"."
    yield "deep_list.pkl", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    yield "huge_memo.pkl", b"\x80\x02Nr\xff\xff\xff\x7f."
    yield "many_instructions.pkl", b"\x80\x02(" + b"N" * 5_000_000 + b"t."
    yield "many_sets.pkl", b"\x80\x04(" + b"\x8f" * 1_499_000 + b"t."
    yield "recursive_list.pt", saved(_recursive())
    yield "laughing_lists.pkl", b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)) + b"."
    yield "laughing_dicts.pkl", b"\x80\x02}q\x00" + b"".join(
        b"}(" + text("a") + b"h%c" % i + text("b") + b"h%cuq%c" % (i, i + 1) for i in range(40)
    ) + b"."  # fmt: skip
    laughing = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(40))
    yield "laughing_key.pkl", b"\x80\x02}" + laughing + b"K\x01s."
    yield "laughing_set.pkl", b"\x80\x04\x8f(" + laughing + b"\x90."
    yield "laughing_frozenset.pkl", b"\x80\x02cbuiltins\nfrozenset\n](" + laughing + b"e\x85R."
    yield "laughing_ordered.pkl", b"\x80\x02ccollections\nOrderedDict\n](](" + laughing + b"K\x01ee\x85R."
    listed = b"}q\x00(" + b"".join(text(str(i)) + b"N" for i in range(100_000)) + b"u0"
    ordered = b"ccollections\nOrderedDict\nq\x01)R}" + text("_metadata") + b"h\x00sb"
    yield "shared_metadata.pkl", b"\x80\x02" + listed + b"](" + ordered * 10_000 + b"e."
    hidden = b"}q\x00(" + b"".join(text(f"_{i}") + b"N" for i in range(100_000)) + b"u0"
    yield "shared_state.pkl", b"\x80\x02" + hidden + b"](" + b"ca\nB\n)\x81h\x00b" * 10_000 + b"e."
    facts = b"}" + text("_modules") + b"}s" + text("_parameters") + b"}s"
    laughed = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40))
    yield (
        "laughing_settings.pkl",
        b"\x80\x02}" + text("G") + b"ctorch.nn\nModule\n)\x81" + facts + text("_init_kwargs") + laughed + b"sbs.",
    )
    modules = (
        b"ctorch.nn\nModule\n)\x81"
        + facts
        + b"bq\x00"
        + b"".join(
            b"ctorch.nn\nModule\n)\x81"
            + facts
            + text("_modules")
            + b"}"
            + text("a")
            + b"h%cs" % i
            + text("b")
            + b"h%cs" % i
            + b"sbq%c" % (i + 1)
            for i in range(30)
        )
    )
    yield "laughing_modules.pkl", b"\x80\x02}" + text("G") + modules + b"s."
    yield "long_tuple_key.pkl", b"\x80\x02" + text("x" * 5_000_000) + b"q\x000}((" + b"h\x00" * 10 + b"tK\x01u."
    yield "colliding_numbers.pkl", b"\x80\x02}(" + b"".join(
        b"\x8a\x0b" + ((2**61 - 1) * i * 2**10).to_bytes(11, "little") + b"N" for i in range(1, 60_000)
    ) + b"u."  # fmt: skip
    yield "huge_number.pkl", b"\x80\x02\x8b" + (100_000).to_bytes(4, "little") + b"\x7f" * 100_000 + b"."
    yield "long_number.pkl", b"L" + b"9" * 100_000 + b"L\n."
    yield "many_classes.pkl", b"\x80\x02](" + b"".join(b"ca\nC%d\n" % i for i in range(100_000)) + b"e."
    yield "long_class.pkl", b"\x80\x02c" + b"a" * 1_000_000 + b"\nC\n."
    yield "repeated_call.pkl", b"\x80\x02(" + b"N" * 100_000 + b"tq\x00](" + b"cos\nsystem\nh\x00R" * 20_000 + b"e."
    encode = b"c_codecs\nencode\nq\x01" + text("x" * 1_000_000) + text("latin1") + b"\x86q\x02"
    yield "repeated_encode.pkl", b"\x80\x02](" + encode + b"h\x01h\x02R" * 5_000 + b"e."
    inner = saved(torch.zeros(1).untyped_storage(), _use_new_zipfile_serialization=False)
    load = b"ctorch.storage\n_load_from_bytes\nq\x01B" + len(inner).to_bytes(4, "little") + inner + b"\x85q\x02"
    yield "repeated_nested.pkl", b"\x80\x04](" + load + b"h\x01h\x02R" * 200_000 + b"e."
    yield "claims_gigabytes.pkl", b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x."
    yield "claims_negative.pkl", b"\x80\x02\x8b\xff\xff\xff\xff."
    yield "only_stop.pkl", b"\x80\x04."
    yield "no_stop.pkl", b"\x80\x04}"
    yield "out_of_band.pkl", b"\x80\x05\x97."
    yield "empty_stack.pkl", b"\x80\x02sssss."
    yield "stray_marks.pkl", b"\x80\x02((((1111tttt."
    yield "shared_by_thousands.pt", _shared()


def _recursive() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


def _shared() -> bytes:
    base = torch.zeros(1000, 1000)
    return saved({f"w{i}": base.view(1_000_000)[i:] for i in range(1000)})


def zips(_canaries: Path) -> Files:
    """Zip archives that lie."""
    good = MAKERS["zip"]()
    yield "overlapping.pt", _overlapping()
    yield "traversal.zip", zipped({"../../G.pth": b"\x80\x02cos\nsystem\n."})
    yield (
        "traversal_record.pt",
        zipped({"a/data.pkl": tensor(b"K\x04\x85", b"K\x01\x85").replace(text("0"), text("../../etc/passwd"))}),
    )
    link = zipfile.ZipInfo("G.pth")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    yield "symlink.zip", buffer.getvalue()
    encrypted = bytearray(good)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := encrypted.find(signature, start)) >= 0:
            encrypted[start + offset] |= 1
            start += 4
    yield "encrypted.pt", bytes(encrypted)
    end = good.rfind(b"PK\x05\x06")
    yield "directory_beyond.pt", good[: end + 16] + b"\xff\xff\xff\x7f" + good[end + 20 :]
    yield "directory_huge.pt", good[: end + 12] + b"\xff\xff\xff\x7f" + good[end + 16 :]
    yield "two_pickles.zip", zipped({"G.pth": good, "D.pth": good})
    yield "zip_in_zip_in_zip.zip", zipped({"a.tar": zipped({"b.tar": zipped({"c.tar": zipped({"G.pth": good})})})})
    yield "names.zip", zipped({"\x1b[2J\x07evil\n.pth": good, "<script>alert(1)</script>.pth": good})


def bombs(_canaries: Path) -> Files:
    """A little on disk that would be much in memory."""
    yield "bomb.pt", zipped({"a/data.pkl": bytes(300_000_000)}, zipfile.ZIP_DEFLATED)
    yield (
        "bomb_of_weights.pt",
        zipped(
            {"a/data.pkl": tensor(b"K\x04\x85", b"K\x01\x85"), "a/data/0": bytes(300_000_000)}, zipfile.ZIP_DEFLATED
        ),
    )
    yield "bomb_wrapped.zip", zipped({"G.pt": bytes(300_000_000)}, zipfile.ZIP_DEFLATED)
    lying = bytearray(zipped({"a/data.pkl": bytes(100_000_000)}, zipfile.ZIP_DEFLATED))
    place = lying.rfind(b"PK\x01\x02") + 24
    lying[place : place + 4] = (1000).to_bytes(4, "little")
    yield "bomb_that_claims_little.pt", bytes(lying)
    yield "many_entries.zip", _many_entries()
    yield "gzip_bomb.pt.gz", gzip.compress(bytes(300_000_000), mtime=0)


def _overlapping() -> bytes:
    """A thousand directory entries for one deflated megabyte."""
    raw = bytearray(zipped({"a/data.pkl": bytes(1_000_000)}, zipfile.ZIP_DEFLATED))
    first = raw.find(b"PK\x01\x02")
    end = raw.find(b"PK\x05\x06")
    entry = bytes(raw[first:end])
    entries = b"".join(entry.replace(b"a/data.pkl", b"a/%08d" % i) for i in range(1000)) + entry
    tail = bytearray(raw[end:])
    tail[8:12] = (1001).to_bytes(2, "little") * 2
    tail[12:16] = len(entries).to_bytes(4, "little")
    return bytes(raw[:first]) + entries + bytes(tail)


def _many_entries() -> bytes:
    entry = b"PK\x01\x02" + bytes(24) + b"\x01\x00" + bytes(16) + b"x"
    count = 400_000
    tail = (
        b"PK\x05\x06"
        + bytes(4)
        + b"\xff\xff\xff\xff"
        + (count * 47).to_bytes(4, "little")
        + (4).to_bytes(4, "little")
        + bytes(2)
    )
    return b"PK\x03\x04" + entry * count + tail


def tars(_canaries: Path) -> Files:
    """Tar archives that reach out of themselves, and gzip bombs."""
    good = MAKERS["zip"]()
    yield "traversal.tar", tarred({"../../../tmp/escaped.txt": b"x", "/abs/escaped.txt": b"y"})
    for name, kind, target in (("symlink", tarfile.SYMTYPE, "/etc/passwd"), ("hardlink", tarfile.LNKTYPE, "/etc/passwd"),
                               ("device", tarfile.CHRTYPE, ""), ("fifo", tarfile.FIFOTYPE, "")):  # fmt: skip
        entry = tarfile.TarInfo("G.pth")
        entry.type, entry.linkname = kind, target
        yield f"{name}.tar", _tar_of(entry)
    sized = tarfile.TarInfo("G.pth")
    sized.size = 2**40
    yield "claims_terabyte.tar", _tar_of(sized)
    yield (
        "sparse.tar",
        _tar_of(
            tarfile.TarInfo("G.pth"),
            {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**50)},
        ),
    )
    yield "long_headers.tar", _tar_of(tarfile.TarInfo("G.pth"), {"comment": "x" * 3_000_000})
    yield "two.tar", tarred({"G.pth": good, "D.pth": good})
    yield (
        "gzip_twice.gz",
        gzip.compress(gzip.compress(gzip.compress(gzip.compress(good, mtime=0), mtime=0), mtime=0), mtime=0),
    )
    yield "gzip_many_members.gz", gzip.compress(b"", mtime=0) * 50_000


def _tar_of(entry: tarfile.TarInfo, pax: dict[str, str] | None = None) -> bytes:
    entry.pax_headers = pax or {}
    return entry.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) + bytes(10240)


def tensors_files(_canaries: Path) -> Files:
    """safetensors and ONNX files that lie."""
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    cases: dict[str, object] = {
        "offsets_beyond": {"w": {**entry, "data_offsets": [0, 2**60]}},
        "offsets_negative": {"w": {**entry, "data_offsets": [-16, 0]}},
        "offsets_reversed": {"w": {**entry, "data_offsets": [16, 0]}},
        "shape_huge": {"w": {**entry, "shape": [2**62, 2**62]}},
        "shape_negative": {"w": {**entry, "shape": [-4]}},
        "shape_float": {"w": {**entry, "shape": [4.0]}},
        "shape_nested": {"w": {**entry, "shape": [[4]]}},
        "dtype_unknown": {"w": {**entry, "dtype": "OBJECT"}},
        "dtype_table": {"w": {**entry, "dtype": {"a": 1}}},
        "list": [entry],
        "entry_list": {"w": [1, 2]},
        "metadata_bomb": {"__metadata__": {str(i): "x" for i in range(100_000)}, "w": entry},
        "name_long": {"n" * 1_000_000: entry},
    }
    for name, header in cases.items():
        yield f"{name}.safetensors", with_header(json.dumps(header).encode(), bytes(16))
    yield "json_deep.safetensors", with_header(b"{" + b'"a":{' * 200_000, bytes(16))
    yield "json_wide.safetensors", with_header(b'{"w":[' + b"[]," * 5_000_000 + b"[]]}", bytes(16))
    yield "json_number.safetensors", with_header(b'{"w":' + b"9" * 1_000_000 + b"}", bytes(16))
    twice = json.dumps({"w": entry})[:-1]
    yield "duplicated.safetensors", with_header(f"{twice}, {twice[1:]}}}".encode(), bytes(16))
    yield "header_huge.safetensors", struct.pack("<Q", 2**63) + b"{" + bytes(100)
    chance = random.Random(0)
    yield "garbage.onnx", b"\x08\x08\x12\x07pytorch" + chance.randbytes(4000)
    yield "deep.onnx", b"\x08\x08\x12" + b"\x3a\xff\xff\xff\x7f" * 10_000
    yield "random.pt", chance.randbytes(4000)


def weights(_canaries: Path) -> Files:
    """Networks that are read but are none."""
    plain = dict(network().state_dict())
    first = next(iter(plain))
    yield "nan.pt", saved(plain | {first: torch.full_like(plain[first], torch.nan)})
    yield "infinite.pt", saved(plain | {first: torch.full_like(plain[first], torch.inf)})
    yield "texts.pt", saved(dict.fromkeys(plain, "a string"))
    yield "objects.pt", saved({name: {"a": [1, None]} for name in plain})
    yield "bytes.pt", saved({name: value.to(torch.int8) for name, value in plain.items()})
    yield "flags.pt", saved({name: value.bool() for name, value in plain.items()})
    yield "complex.pt", saved({name: value.to(torch.complex64) for name, value in plain.items()})
    yield "empty_tensors.pt", saved({name: value[:0] if value.dim() else value for name, value in plain.items()})
    yield "empty_dict.pt", saved({})
    yield "empty_ordered.pt", saved(OrderedDict())
    yield "none.pt", saved(None)
    yield "one_number.pt", saved(3)
    yield "one_tensor.pt", saved(torch.zeros(3))
    yield "list_of_tensors.pt", saved([torch.zeros(3)])
    for name, label in NAMES.items():
        yield f"name_{name}.pt", saved({f"{label}{key}": value for key, value in plain.items()})
        yield f"extra_{name}.pt", saved({"net": plain, label: label, "epoch": 3})
    yield "name_markup.safetensors", safetensors({f"{NAMES['markup']}{key}": value for key, value in plain.items()})
    yield "duplicated_keys.pkl", b"\x80\x02}(" + text("w") + b"K\x01" + text("w") + b"K\x02u."


NAMES = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "ansi": "\x1b[2J\x1b[31mred\x07\x9b1m",
    "newlines": "a\nTraceback (most recent call last):\r\n",
    "bidi": "\u202egpj.\u2066",
    "null": "a\0b",
    "surrogate": "\ud800",
    "dots": "..........",
    "long": "n" * 1_000_000,
}


def texts(_canaries: Path) -> Files:
    """What failed downloads leave behind."""
    yield "lfs.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    yield "page.pt", b"<!DOCTYPE html><html><body>Sign in</body></html>"
    yield "s3.pt", b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
    yield "json.pt", b'{"message": "Not Found", "status": "404"}'
    yield "raw404.pt", b"404: Not Found"
    yield "config.json", b'{"latent_dim": 8}'
    yield "empty.pt", b""
    yield "escapes.pt", b"\x1b[31mnot a checkpoint\x1b[0m\n" * 10
    yield "zeros.pt", bytes(1000)
    yield "absent.index.json", b'{"weight_map": {"w": "../../../etc/passwd"}}'
    yield "missing.index.json", b'{"weight_map": {"w": "part-1.safetensors"}}'


def truncations(_canaries: Path) -> Files:
    """One file of each kind, ended at every twentieth of its length."""
    for kind, suffix in (("zip", "pt"), ("legacy", "pt"), ("safetensors", "safetensors"), ("nvlabs", "pkl")):
        whole = MAKERS[kind]()
        for step in range(1, round(1 / ENDED)):
            yield f"ends_{kind}_{step * ENDED:.2f}.{suffix}", whole[: int(len(whole) * step * ENDED)]


def attacks(canaries: Path) -> Files:
    """Pickles that run a command."""
    return pickled_attacks(lambda name: f"touch {canaries}/{name}")


def archived(canaries: Path) -> Files:
    """Archives that write files."""
    return archived_attacks(str(canaries))


GROUPS: dict[str, Callable[[Path], Files]] = {
    "attacks": attacks, "archived": archived,
    "shapes": shapes, "pickles": pickles, "zips": zips, "bombs": bombs, "tars": tars, "tensors": tensors_files, "weights": weights, "texts": texts,
    "truncations": truncations,
}  # fmt: skip


def main() -> None:
    """Write the corpus and its list of names by group."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("groups", nargs="*", default=list(GROUPS))
    given = parser.parse_args()
    canaries: Path = given.folder.resolve() / "canaries"
    canaries.mkdir(parents=True)
    folder = canaries.parent
    torch.set_num_threads(1)
    groups = {name: list(GROUPS[name](canaries)) for name in given.groups}
    for name, files in groups.items():
        (folder / name).mkdir()
        for file, content in files:
            (folder / name / file).write_bytes(content)
    (folder / "corpus.json").write_text(
        json.dumps({name: [file for file, _ in files] for name, files in groups.items()})
    )


if __name__ == "__main__":
    main()
