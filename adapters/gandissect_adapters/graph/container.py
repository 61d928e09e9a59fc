"""The records of a torch.export archive, read without torch.export: its loader evaluates strings out of the file.

    contents = Contents(Path("gan.pt2"))
    contents.model["graph_module"]["graph"]["nodes"]     # plain JSON
    contents.tensors()["main.0.weight"]                  # from raw bytes

torch.export.load passes symbolic sizes to sympy (which evaluates them), compiles guards, and unpickles sample inputs; so
``harmless`` says whether all of these are plain before a caller lets it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect_adapters.graph.graph import first_line

Json = Mapping[str, object]

DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
"""torch._export.serde.schema.ScalarType."""

_PLAIN_SIZE = re.compile(
    r"(?:Symbol\('[su]\d+'(?:, (?:positive|integer|nonnegative)=True)*\)|[su]\d+\b|(?:Add|Mul|Pow|Integer|FloorDiv|Mod|Max|Min)\b"
    r"|[\d\s,()*+/-])*"
)
_PLAIN_GUARD = re.compile(r"(?:L\['\w+'\]\.size\(\)\[\d+\]|\b(?:and|or|not)\b|[\d\s()*+%<>=!/-])*")


class Contents:
    """What an archive of torch.export holds.

    Raises:
        NotOpened: damaged, or without a graph.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.name
        try:
            self._reader = torch._C.PyTorchFileReader(str(path))
            self._records = self._reader.get_all_records()
        except RuntimeError as error:
            raise NotOpened(f"{path.name} is damaged or cut short: its zip directory cannot be read") from error
        name = next(
            (r for r in self._records if r.endswith(("models/model.json", "serialized_exported_program.json"))), ""
        )
        if not name:
            raise NotOpened(f"{path.name} holds no exported graph; save it with torch.export.save")
        self.model: Json = self._json(name)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants under their original dotted names."""
        found: dict[str, Tensor] = {}
        for record in self._records:
            if record.endswith(("_weights_config.json", "_constants_config.json")):
                folder = record.rpartition("/")[0]
                for name, entry in cast("Mapping[str, Json]", self._json(record)["config"]).items():
                    found[name] = self._tensor(folder, entry)
            elif record.endswith(("serialized_state_dict.pt", "serialized_constants.pt")):
                held = self._unpickled(record)
                found.update(
                    {str(k): v for k, v in held.items() if isinstance(v, Tensor)} if isinstance(held, dict) else {}
                )
        return found

    def harmless(self) -> str:
        """Nothing, or what in the file keeps torch.export's own loader from being used."""
        guards = cast("list[object]", self.model.get("guards_code") or [])
        if odd := next((guard for guard in guards if not _PLAIN_GUARD.fullmatch(str(guard))), None):
            return f"it holds the guard {str(odd)[:60]!r}"
        sizes = [*cast("Json", self.model.get("range_constraints", {})), *_values(self.model, "expr_str")]
        if odd := next((size for size in sizes if not _PLAIN_SIZE.fullmatch(str(size))), None):
            return f"it holds the size {str(odd)[:60]!r}"
        try:
            for record in self._records:
                if record.endswith(".pt"):
                    self._unpickled(record)
        except UnsafeCheckpoint as error:
            return str(error)
        return ""

    def _json(self, record: str) -> Json:
        try:
            parsed = json.loads(self._reader.get_record(record))
        except (RuntimeError, ValueError) as error:
            raise NotOpened(f"{self.file} is damaged: {record} cannot be read") from error
        if not isinstance(parsed, dict):
            raise NotOpened(f"{self.file} is damaged: {record} is no table")
        return parsed

    def _unpickled(self, record: str) -> object:
        content = self._reader.get_record(record)
        if not content:
            return None
        try:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds
            raise UnsafeCheckpoint(f"{record} in {self.file} is a pickle that is not of tensors alone") from error

    def _tensor(self, folder: str, entry: Json) -> Tensor:
        record = next(r for r in self._records if r.endswith(f"{folder}/{entry['path_name']}"))
        if entry.get("use_pickle"):
            tensor = self._unpickled(record)
            if not isinstance(tensor, Tensor):
                raise UnsafeCheckpoint(f"{record} in {self.file} is not a tensor")
            return tensor
        meta = cast("Json", entry["tensor_meta"])
        sizes, strides = (_numbers(meta[key]) for key in ("sizes", "strides"))
        content = bytearray(self._reader.get_record(record))
        try:
            flat = torch.frombuffer(content, dtype=DTYPES[int(str(meta["dtype"]))]) if content else torch.empty(0)
            return flat.as_strided(sizes, strides, _number(meta["storage_offset"])).clone()
        except (RuntimeError, ValueError, KeyError) as error:
            raise NotOpened(f"{self.file} is damaged: {record} does not fit its shape ({first_line(error)})") from error


def _values(node: object, key: str) -> Iterator[object]:
    """Every value of ``key`` anywhere in nested JSON."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        if name == key:
            yield child
        yield from _values(child, key)


def _number(value: object) -> int:
    """7 for {"as_int": 7}; 0 for a symbolic size."""
    number = value.get("as_int", 0) if isinstance(value, dict) else value
    return number if isinstance(number, int) else 0


def _numbers(values: object) -> tuple[int, ...]:
    return tuple(_number(value) for value in values) if isinstance(values, list) else ()


def sizes_of(meta: object) -> tuple[int, ...]:
    """The sizes of a tensor in the file's table of values, 0 where symbolic."""
    return _numbers(meta.get("sizes")) if isinstance(meta, dict) else ()
