"""What every style generator must hold, whatever its codebase calls its parts."""

from collections.abc import Mapping

import torch
from family_golden import Golden
from gandissect_adapters.families.style.style_network import StyleNetwork
from torch import Tensor, nn

from gandissect.gan import Gan
from gandissect.tap import tap


def style_network(gan: Gan) -> StyleNetwork:
    """The opened generator's module."""
    assert isinstance(gan.generator.module, StyleNetwork)
    return gan.generator.module


def images(gan: Gan, z: Tensor) -> Tensor:
    """What the module itself makes of ``z``."""
    with torch.no_grad():
        made: Tensor = gan.generator.module(z)
    return made


def scores(gan: Gan, given: Tensor) -> Tensor:
    """What the discriminator's module itself says of ``given``."""
    assert gan.discriminator is not None
    with torch.no_grad():
        made: Tensor = gan.discriminator.module(given)
    return made


def critic(gan: Gan) -> nn.Module:
    """The opened discriminator's module."""
    assert gan.discriminator is not None
    return gan.discriminator.module


def outputs_equal(case: Golden, net: nn.Module, z: Tensor, layers: Mapping[str, str]) -> None:
    """Assert that the layers, by their names in ``case``, give what was recorded."""
    with torch.no_grad(), tap(net, list(dict.fromkeys(layers.values()))) as seen:
        net(z)
    for key, name in layers.items():
        case.equal(seen[name], key)


def spaces_hold(gan: Gan, z: Tensor) -> None:
    """Assert that going through each inner space changes nothing and that its centre is a point of it."""
    whole = images(gan, z)
    for space in gan.generator.inner:
        with torch.no_grad():
            point = space.enter(z, None)
            torch.testing.assert_close(space.leave(point, None), whole)
        assert point.shape[1:] == space.shape
        assert space.centre is not None and space.centre.shape == space.shape


def seeded(net: nn.Module) -> nn.Module:
    """``net`` with every weight and buffer drawn, filters positive and of sum 1 (those for doubling of sum 4)."""
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=stream))
        for name, buffer in net.named_buffers():
            if name.endswith("lod"):
                buffer.zero_()
            elif name.endswith("noise") or "noise_" in name:
                buffer.copy_(torch.randn(buffer.shape, generator=stream))
            else:
                buffer.copy_(torch.ones(buffer.shape) / buffer[0].numel())
    return net.eval()
