"""An opened network as readable PyTorch code and a safetensors file, for use without gandissect.

write_code(gan, Path("model.py"))       # model.py and model.safetensors; `python model.py` draws sixteen images

A network that runs its layers one after the other becomes nn.Sequentials with the layers' names. Any other is traced with
torch.export, and its operations are written out one by one under the names of the modules they came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from keyword import iskeyword
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from gandissect.errors import NotOpened, UsageError
from gandissect.gan import Gan, Generator
from gandissect.sampling import latents

_DRAWN = 16

_HEAD = '''"""{title}

Written by gandissect. Needs torch and safetensors (Pillow to draw): `python {file}` draws {drawn} images into {stem}.png.
"""

{imports}


{body}

def load() -> {kind}:
    """The {role} with its weights, in eval mode."""
    {build}


if __name__ == "__main__":
    from PIL import Image

    torch.manual_seed(0)
    z = {draw}
    with torch.no_grad():
        images = load()({call})
    images = ((images.reshape({drawn}, {channels}, {height}, {width}) - {low}) / {span}).clamp(0, 1)
    images = {coloured}
    grid = images.reshape(4, 4, 3, {height}, {width}).permute(0, 3, 1, 4, 2).reshape(4 * {height}, 4 * {width}, 3)
    Image.fromarray((grid * 255).byte().numpy()).save(Path(__file__).with_suffix(".png"))
'''


@dataclass(frozen=True)
class _Code:
    """What a network's code consists of, and the tensors it needs."""

    imports: tuple[str, ...]
    body: str
    kind: str
    build: str
    tensors: Mapping[str, Tensor]


def write_code(gan: Gan, path: Path) -> tuple[Path, Path]:
    """Write the generator to ``path`` (a .py file) and its weights beside it; both are there, or neither.

    Raises:
        UsageError: ``path`` does not end in .py or is in no folder that exists.
        NotOpened: the network cannot be traced; the sentence says why.
    """
    if path.suffix != ".py":
        raise UsageError(f"--export {path}: expected a file that ends in .py; its weights go beside it as .safetensors")
    if not path.parent.is_dir():
        raise UsageError(f"--export {path}: there is no folder {path.parent}")
    from safetensors.torch import save

    generator = gan.generator
    code = _sequential(generator.module) or _traced(generator)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in code.tensors.items()}
    text, raw = _page(gan, code, path), save(weights)
    target = path.with_suffix(".safetensors")
    target.write_bytes(raw)
    path.write_text(text, encoding="utf-8")
    return path, target


def _page(gan: Gan, code: _Code, path: Path) -> str:
    generator = gan.generator
    channels, height, width = generator.image_shape
    low, high = generator.output_range
    shape = ", ".join(map(str, (_DRAWN, *generator.latent.shape)))
    draw = f"torch.randn({shape})"
    if generator.latent.prior != "normal":
        first, last = generator.latent.span
        draw = f"torch.rand({shape}) * {last - first} + {first}"
    facts = [f"{a.name} = {a.value}{'' if a.sure else ' (unsure)'}: {a.because}" for a in gan.opening.assumptions]
    title = "\n".join(
        [f"The generator of {gan.name}: {gan.opening.family or 'a GAN'}.", *([""] if facts else []), *facts]
    )
    title = title.replace("\\", "/").replace('"""', "'''")
    imports = "\n".join(code.imports)
    return _HEAD.format(
        title=title, file=path.name, stem=path.stem, drawn=_DRAWN, imports=imports, body=code.body.rstrip() + "\n", kind=code.kind,
        role="generator", build=code.build, draw=draw, channels=channels, height=height,
        coloured="images.expand(-1, 3, -1, -1)" if channels == 1 else "images[:, :3]", width=width, low=low, span=high - low,
        call=f"z, torch.arange({_DRAWN}) % {generator.num_classes}" if generator.num_classes else "z",
    )  # fmt: skip


_IMPORTS = (
    "from collections import OrderedDict", "from pathlib import Path", "", "import torch",
    "from safetensors.torch import load_file", "from torch import Tensor, nn",
)  # fmt: skip
_BUILD = """model = Generator()
    model.load_state_dict(load_file(Path(__file__).with_suffix(".safetensors")))
    return model.eval()"""

# -- layers one after the other ---------------------------------------------------------------------------------------------


def _sequential(module: nn.Module) -> _Code | None:
    """nn.Sequentials for a module whose ``order`` lists all its layers as they run; None for any other."""
    order = getattr(module, "order", None)
    if not isinstance(order, tuple) or hasattr(module, "condition"):
        return None
    layers = [(str(name), module.get_submodule(name)) for name in order]
    if any(
        any(True for _ in layer.children()) or type(layer).__module__.split(".")[0] != "torch" for _, layer in layers
    ):
        return None
    if all(name.isdigit() for name, _ in layers):
        return _Code(_IMPORTS, "\n".join(_numbered(layers)), "Generator", _BUILD, module.state_dict())
    runs = [(prefix, list(group)) for prefix, group in groupby(layers, key=lambda item: item[0].rpartition(".")[0])]
    prefixes = [prefix for prefix, _ in runs if prefix]
    if len(set(prefixes)) < len(prefixes) or not all(_plain(prefix) for prefix in prefixes):
        return None
    if not all(_plain(name) for prefix, group in runs if not prefix for name, _ in group):
        return None
    return _Code(_IMPORTS, "\n".join(_nested(runs)), "Generator", _BUILD, module.state_dict())


def _numbered(layers: Iterable[tuple[str, nn.Module]]) -> Iterator[str]:
    """A network that is one Sequential."""
    yield "class Generator(nn.Sequential):"
    yield '    """Layers under the numbers they have in the checkpoint."""'
    yield from ("", "    def __init__(self) -> None:", "        super().__init__(OrderedDict([")
    for name, layer in layers:
        yield f'            ("{name}", nn.{layer!r}),'
    yield from ("        ]))", "")


def _nested(runs: Sequence[tuple[str, list[tuple[str, nn.Module]]]]) -> Iterator[str]:
    """A network of several Sequentials and single layers."""
    yield "class Generator(nn.Module):"
    yield '    """Layers under the names they have in the checkpoint."""'
    yield from ("", "    def __init__(self) -> None:", "        super().__init__()")
    for prefix, group in runs:
        yield from _declared(prefix, group)
    yield from ("", "    def forward(self, x: Tensor) -> Tensor:")
    for prefix, group in runs:
        yield from (f"        x = self.{name}(x)" for name in ([prefix] if prefix else [name for name, _ in group]))
    yield from ("        return x", "")


def _plain(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name)


def _declared(prefix: str, group: Iterable[tuple[str, nn.Module]]) -> Iterator[str]:
    if not prefix:
        for name, layer in group:
            yield f"        self.{name} = nn.{layer!r}"
        return
    yield f"        self.{prefix} = nn.Sequential(OrderedDict(["
    for name, layer in group:
        yield f'            ("{name.rpartition(".")[2]}", nn.{layer!r}),'
    yield "        ]))"


# -- any other network ------------------------------------------------------------------------------------------------------


def _traced(generator: Generator) -> _Code:
    """The operations that torch.export sees, one line each."""
    program, fixed = _exported(generator)
    signature = program.graph_signature
    sources = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    held = {
        **program.state_dict,
        **{name: value for name, value in program.constants.items() if isinstance(value, Tensor)},
    }
    given = ("z", "labels") if generator.num_classes else ("z",)
    lines = _operations(program.graph_module.graph, sources, given)
    tensors = {name: held[name] for name in sources.values() if name in held}
    only = f" Takes batches of {_DRAWN}." if fixed else ""
    parameters = ", ".join(f"{name}: Tensor" for name in given)
    head = [
        "class Generator:", f'    """Operations as they run; ``w`` maps the checkpoint\'s names to its tensors.{only}"""', "",
        "    def __init__(self, w: dict[str, Tensor]) -> None:", "        self.w = w", "",
        f"    def __call__(self, {parameters}) -> Tensor:", "        w = self.w",
    ]  # fmt: skip
    body = "\n".join([*head, *lines, ""])
    imports = [
        "from pathlib import Path",
        "",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import Tensor",
    ]
    if "operator." in body:
        imports.insert(0, "import operator")
    build = 'return Generator(load_file(Path(__file__).with_suffix(".safetensors")))'
    return _Code((*imports, "", "aten = torch.ops.aten"), body, "Generator", build, tensors)


def _exported(generator: Generator) -> tuple[torch.export.ExportedProgram, bool]:
    """The traced generator, and whether it takes batches of sixteen only (where its code looks at the batch's size)."""
    z = latents(0, range(_DRAWN), generator.latent).reshape(_DRAWN, *generator.latent.shape).to(generator.device)
    given = (z, torch.arange(_DRAWN, device=z.device) % generator.num_classes) if generator.num_classes else (z,)
    batch = torch.export.Dim("batch", min=2)
    reason = ""
    for shapes in (tuple({0: batch} for _ in given), None):
        try:
            return torch.export.export(generator.module, given, dynamic_shapes=shapes), shapes is None
        except Exception as error:  # torch.export raises many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise NotOpened(f"the generator cannot be written as code: torch.export cannot trace it ({reason})")


def _operations(graph: torch.fx.Graph, sources: Mapping[str, str], arguments: Sequence[str]) -> Iterator[str]:
    names = iter(arguments)
    known: dict[torch.fx.Node, str] = {}
    last = ""
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = f'w["{sources[node.name]}"]' if node.name in sources else next(names)
        elif node.op == "output":
            result = cast("tuple[torch.fx.Node, ...]", node.args[0])[0]
            yield f"        return {known[result]}"
        elif node.op == "call_function" and not node.users and "assert" in str(node.target):
            continue
        else:
            origin = _origin(node)
            if origin != last and origin:
                yield f"        # {origin}"
                last = origin
            known[node] = node.name
            yield f"        {node.name} = {_target(node)}({_arguments(node, known)})"


def _origin(node: torch.fx.Node) -> str:
    """The innermost module that the operation came from: ``synthesis.b8.conv0 (SynthesisLayer)``."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return ""
    path, kind = list(stack.values())[-1]
    name = str(kind).rpartition(".")[2].strip("'>")
    return f"{path} ({name})" if path and not str(path).startswith("_") else ""


def _target(node: torch.fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return f"aten.{node.target.__name__}" if node.target.namespace == "aten" else f"torch.ops.{node.target}"
    module, name = getattr(node.target, "__module__", ""), getattr(node.target, "__name__", "")
    if module not in ("_operator", "operator"):
        raise NotOpened(f"the generator cannot be written as code: it uses {node.target}")
    return f"operator.{name}"


def _arguments(node: torch.fx.Node, known: Mapping[torch.fx.Node, str]) -> str:
    parts = [_value(value, known) for value in node.args]
    parts += [f"{key}={_value(value, known)}" for key, value in node.kwargs.items() if key != "device"]
    return ", ".join(parts)


def _value(value: object, known: Mapping[torch.fx.Node, str]) -> str:
    if isinstance(value, torch.fx.Node):
        return known[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item, known) for item in value)}]"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return str(value) if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)) else repr(value)
