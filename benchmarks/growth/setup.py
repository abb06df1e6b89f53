"""What the parts share: the servers, the sizes of the catalogue, a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress

from benchmarks.comparison.measure import Plan
from benchmarks.comparison.stage import Stage
from benchmarks.growth.catalogue import url_of
from benchmarks.growth.cost import Costs, Probe, measure
from benchmarks.service import Service


@dataclass(frozen=True)
class Setup:
    stage: Stage
    plan: Plan
    sizes: tuple[int, ...]  # books of the catalogues
    requests: int  # of the part about memory
    quick: bool
    progress: Progress

    @property
    def largest(self) -> str:
        """The URL of the largest catalogue."""
        return self.catalogue(self.sizes[-1])

    def catalogue(self, books: int) -> str:
        return url_of(self.stage.variables["DATABASE_URL"], books)

    def running(self, *options: str, **variables: Any) -> AbstractContextManager[Service]:
        """This service, on the largest catalogue unless another one is named."""
        variables = {"DATABASE_URL": self.largest, **variables}
        return self.stage.running("ours", *options, **variables)

    @contextmanager
    def on_each(self, **variables: str) -> Iterator[dict[int, Service]]:
        """A service for each catalogue, by its number of books."""
        with ExitStack() as stack:
            yield {
                books: stack.enter_context(
                    self.running(DATABASE_URL=self.catalogue(books), **variables)
                )
                for books in self.sizes
            }

    def measure(self, name: str, probes: list[Probe]) -> Costs:
        with self.advancing(name, len(probes) * (self.plan.rounds + 1)) as advance:
            return measure(self.stage, probes, self.plan, advance)

    @contextmanager
    def advancing(self, name: str, total: float) -> Iterator[Callable[[str], None]]:
        task = self.progress.add_task(name, total=total)

        def advance(part: str) -> None:
            self.progress.update(task, advance=1, description=f"{name}: {part}")

        yield advance
        self.progress.remove_task(task)
