"""Every measurement of docs/benchmarks.md, one after the other, each in a process of its own.

    python -m benchmarks.all                    # print the tables
    python -m benchmarks.all --write            # and put them where docs/benchmarks.md has their markers
    python -m benchmarks.all --only one_core,foreground --folder /scratch

Run it on a machine that does nothing else. A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "online_teacher": (),
    "cached_equals_live": ("--only-table",),
    "loss_exactness": (),
    "data_wait": (),
    "clip_stream": (),
    "delivered": (),
    "one_core": (),
    "foreground": (),
    "writing": (),
    "caching_overhead": (),
    "opening": (),
    "writer_memory": (),
    "base_forward": ("--threads", "2", "--repeats", "3"),
}
"""Module name, and its arguments. The students of ``cached_equals_live`` train for hours: its table is of those in
``results/``."""

WITHOUT_FOLDER = ("base_forward", "cached_equals_live")
"""They write no data."""

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def run(name: str, folder: Path | None) -> str:
    """One benchmark; what it printed.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    place = () if folder is None or name in WITHOUT_FOLDER else ("--folder", str(folder))
    command = [sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name], *place]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=DOCUMENT.parent.parent).stdout


def tables_of(output: str) -> str:
    """The Markdown tables in what a benchmark printed, an empty line between two of them."""
    lines = [line if line.startswith("|") else "" for line in output.splitlines()]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip("\n")


def with_tables(document: str, tables: Mapping[str, str]) -> str:
    """A document with the tables between its markers replaced.

    Raises:
        ValueError: the document has no marker of that name.
    """
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if marked.search(document) is None:
            raise ValueError(f"no '<!-- table: {name} -->' followed by '<!-- end -->' in the document")
        document = marked.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", document)  # type: ignore[misc]
    return document


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; returns how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"of {','.join(BENCHMARKS)}")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/benchmarks.md")
    parser.add_argument("--folder", type=Path, help="where they put their data, for the time of the run")
    chosen = parser.parse_args(arguments)
    names = list(BENCHMARKS) if chosen.only is None else chosen.only.split(",")
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    failed = 0
    for name in names:
        begin = time.monotonic()
        print(f"\n{name}", flush=True)
        try:
            output = run(name, chosen.folder)
        except subprocess.CalledProcessError as error:
            failed += 1
            print(f"{name} failed with status {error.returncode}", file=sys.stderr)
            continue
        print(f"{output}({time.monotonic() - begin:.0f} s)", flush=True)
        if chosen.write:  # at once: a later failure loses nothing
            DOCUMENT.write_text(with_tables(DOCUMENT.read_text(), {name: tables_of(output)}))
    return failed


if __name__ == "__main__":
    sys.exit(main())
