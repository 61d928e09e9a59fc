"""The average colour of the samples: a complete plugin for gandissect.

gandissect analyze ckpt.pt -a mean-colour
"""

from collections.abc import Iterator

from gandissect import Analyzer, Section, Session, Table, hookimpl


class MeanColour(Analyzer):
    """The average colour of the samples."""

    name = "mean-colour"

    def run(self, session: Session) -> Iterator[Section]:
        """One table with one row."""
        mean = session.images().mean((0, 2, 3)).tolist()  # float32 [C] in [-1, 1]
        columns = ("R", "G", "B") if len(mean) == 3 else tuple(f"channel {c}" for c in range(len(mean)))
        yield Section("Mean colour", Table(columns, [mean]), summary=f"The mean over {session.n} samples.")


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """What this plugin offers."""
    return [MeanColour]
