"""A generator of 64 units that draw, draw together, draw twice, only follow, hold back, or do nothing."""

from dataclasses import dataclass

import torch
from gandissect_plugins.dissection.causal import Role
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan

UNITS, LATENT = 64, 48
LAYOUTS = (8, 16)
LAYER = "act"
COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0), "yellow": (1.0, 1.0, -1.0)}
LEVEL = 0.3  # of a latent coordinate above which its square is drawn, in 38 % of the samples
STEEP = 20.0


@dataclass(frozen=True)
class Truth:
    """(concept or nothing, role) of every unit."""

    concepts: tuple[str | None, ...]
    roles: tuple[Role, ...]


class PlantedCauses(nn.Module):
    """Latent [N, 48] to [N, 3, 32, 32]: 16 squares of 4 colours, each at its own place of a 4×4 board.

    Of the four squares of a colour two are drawn by one unit each, one by either of two (each alone is enough) and one by
    two together (each is needed). Two units follow squares without a way to the image, one holds back a square; the
    others never vary, vary without a way to the image, or shift the brightness a little. The seed shuffles units and places;
    ``grid`` is how many cells a side the units' maps have.
    """

    def __init__(self, seed: int, grid: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(LATENT, UNITS, grid)
        self.act = nn.Hardtanh(0.0, 1.0)
        self.join = nn.Conv2d(UNITS, 17, 1)
        self.limit = nn.Hardtanh(0.0, 1.0)
        self.to_rgb = nn.Conv2d(17, 3, 1)
        stream = torch.Generator().manual_seed(seed)
        self._units = torch.randperm(UNITS, generator=stream).tolist()
        self._places = torch.randperm(16, generator=stream).tolist()
        self._noise = torch.randn(UNITS, grid, grid, generator=stream)
        self._side = grid // 4
        self._truth: dict[int, tuple[str | None, Role]] = {}
        with torch.no_grad():
            for weights in (self.conv, self.join, self.to_rgb):
                weights.weight.zero_()
                assert weights.bias is not None
                weights.bias.zero_()
            self._plant()
        self.eval()

    @property
    def truth(self) -> Truth:
        """What is true of each unit."""
        rows = [self._truth[unit] for unit in range(UNITS)]
        return Truth(tuple(concept for concept, _ in rows), tuple(role for _, role in rows))

    def _take(self, concept: str | None, role: Role) -> int:
        unit = self._units[len(self._truth)]
        self._truth[unit] = (concept, role)
        return int(unit)

    def _draws(self, unit: int, source: int, place: int) -> None:
        """The unit is 1 in one square where its latent coordinate exceeds ``LEVEL``, else 0."""
        side = self._side
        row, column = side * (place // 4), side * (place % 4)
        self.conv.weight[source, unit, row : row + side, column : column + side] = STEEP
        self.conv.bias[unit] = -STEEP * LEVEL  # type: ignore[index]  # there is a bias

    def _plant(self) -> None:
        assert self.join.bias is not None
        for colour, (name, rgb) in enumerate(COLOURS.items()):
            kinds = [[Role.BOTH], [Role.BOTH], [Role.REDUNDANT] * 2, [Role.NECESSARY] * 2]
            for kind, roles in enumerate(kinds):
                square = 4 * colour + kind
                for role in roles:
                    unit = self._take(name, role)
                    self._draws(unit, square, self._places[square])
                    self.join.weight[square, unit] = 1.0
                if kind == 3:
                    self.join.bias[square] = -1.0
                self.to_rgb.weight[:, square, 0, 0] = 40.0 * torch.tensor(rgb)
            for kind in (0, 2):
                self._draws(self._take(name, Role.CORRELATE), 4 * colour + kind, self._places[4 * colour + kind])
            self._hold_back(name, 4 * colour)
        for _ in range(8):
            self._take(None, Role.DEAD)
        for number in range(UNITS - len(self._truth)):
            idle = number % 2 == 0
            unit = self._take(None, Role.DEAD if idle else Role.NONE)
            self.conv.weight[20 + number, unit] = self._noise[unit]
            if not idle:
                self.join.weight[16, unit] = 0.05
        self.to_rgb.weight[:, 16] = 0.3

    def _hold_back(self, name: str, square: int) -> None:
        unit = self._take(name, Role.INHIBITORY)
        self.conv.weight[16 + square // 4, unit] = STEEP
        self.conv.bias[unit] = -STEEP * LEVEL  # type: ignore[index]  # there is a bias
        self.join.weight[square : square + 4, unit] = -2.0

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.act(self.conv(z[:, :, None, None]))
        image: Tensor = torch.tanh(self.to_rgb(self.limit(self.join(hidden))))
        return nn.functional.interpolate(image, (32, 32))


def planted_causes(seed: int, grid: int = 16) -> tuple[Gan, Truth]:
    """The opened generator and what is true of its units."""
    net = PlantedCauses(seed, grid)
    networks = Networks(net, latent=LatentSpace("z", (LATENT,)))
    return build_gan(networks, name=f"planted {seed}", opening=Opening("test", "planted")), net.truth
