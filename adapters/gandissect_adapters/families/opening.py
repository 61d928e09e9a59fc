"""A network rebuilt by its family.

rebuild_generator(family, state, assume={}, beside=states)      # Networks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gandissect.adapter import Networks
from gandissect.errors import NotOpened, unknown_name
from gandissect_adapters.families.family import Case, Family
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.unwrap import StateDict


def rebuild_generator(
    family: Family, net: StateDict, assume: Mapping[str, str], beside: Sequence[StateDict] = ()
) -> Networks:
    """The generator, with what was assumed and noted.

    Raises:
        UnknownName: an assumption that this family does not ask.
        NotOpened: it cannot be rebuilt.
    """
    case = _case(family, net, assume, beside)
    return _told(family, case, _made(family, family.generator, case))


def rebuild_discriminator(
    family: Family, net: StateDict, assume: Mapping[str, str], image_shape: tuple[int, int, int]
) -> Networks:
    """The discriminator for images of ``image_shape`` (C, H, W)."""
    case = _case(family, net, {key: value for key, value in assume.items() if key in family.options}, ())
    case.image_shape = image_shape
    return _told(family, case, _made(family, family.discriminator, case))


def _case(family: Family, net: StateDict, assume: Mapping[str, str], beside: Sequence[StateDict]) -> Case:
    given = {name.replace("_", "-"): value.strip() for name, value in assume.items()}
    for name in given:
        if name not in family.options and not name.startswith("discriminator-"):  # those are for who reads that one
            raise unknown_name("assumption", name, list(family.options), f"(of {family.name})")
    tensors, notes = fold(net.tensors, family.transposed)
    return Case(net, tensors, family.options, given, beside, notes=[*net.notes, *notes])


def _made(family: Family, build: Callable[[Case], Networks], case: Case) -> Networks:
    try:
        return build(case)
    except KeyError as error:  # a name that the family looks up to learn a size
        raise NotOpened(f"the network is laid out like {family.name} but has no {error}") from error
    except IndexError as error:
        raise NotOpened(f"the network is named like {family.name} but its weights have other dimensions") from error


def _told(family: Family, case: Case, made: Networks) -> Networks:
    return replace(
        made,
        family=made.family or family.name,
        assumptions=tuple(dict.fromkeys((*made.assumptions, *case.assumptions))),
        verification=made.verification
        or f"every tensor of the file has its place in {family.name} ({family.source}), by name and shape",
        notes=(*made.notes, *dict.fromkeys(case.notes)),
    )
