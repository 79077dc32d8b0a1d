"""What every notebook needs besides its subject: saving figures, tables and metrics, and timing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl
from IPython.display import Image
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.storage import write_csv, write_json


class Stage:
    """One notebook's place in a run.

    Args:
        name: the notebook's, "07_quality"; its results lie in the folder `root`/quality.
        root: folder of the run, `runs/laptop`.
        figures_dir: where figures and their tables go.
    """

    def __init__(self, name: str, root: str | Path, figures_dir: str | Path):
        self.root, self.figures = Path(root), Path(figures_dir)
        self.folder = self.root / name.partition("_")[2]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._started, self._seconds = perf_counter(), {}
        style.use()
        pl.Config.set_tbl_rows(60).set_tbl_cols(12).set_fmt_str_lengths(120)  # tables are shown whole
        print(f"{name}: results in {self.folder.as_posix()}, figures in {self.figures.as_posix()}")

    def figure(self, figure: Figure, table: pl.DataFrame, name: str) -> Image:
        """Save a figure as `name`.png and what it plots as `name`.csv; returns a preview for the notebook."""
        return style.preview(style.save(figure, table, self.figures / f"{name}.png"))

    def table(self, table: pl.DataFrame, name: str) -> pl.DataFrame:
        """Save a table as `name`.csv beside the figures; returns it."""
        write_csv(table, self.figures / f"{name}.csv")
        return table

    def result(self, table: pl.DataFrame, name: str) -> None:
        """Save a table as `name`.csv in the stage's folder; DVC's cache, which may be linked there, stays as it is."""
        write_csv(table, self.folder / f"{name}.csv")

    def read(self, name: str) -> pl.DataFrame:
        """The table `name`.csv in the stage's folder."""
        return pl.read_csv(self.folder / f"{name}.csv", infer_schema_length=None, glob=False)

    def metrics(self, values: dict[str, Any]) -> None:
        """Write the stage's numbers, for `dvc metrics`."""
        write_json(values, self.folder / "metrics.json")

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Time a block under a name."""
        start = perf_counter()
        yield
        self._seconds[name] = perf_counter() - start

    def report_clock(self) -> None:
        """Print the seconds of each timed block and of the whole stage, in this execution."""
        seconds = self._seconds | {"in all": perf_counter() - self._started}
        print("wall-clock: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
