"""What a program left of its coverage data when it was killed in the middle of writing them.

A program that is measured writes one file as it ends, also on SIGTERM; a test may kill it just then. Combining
warns of such a file, with a text that tells nobody what to do, and leaves it lying about.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["is_whole", "remove_torn"]


def is_whole(path: Path) -> bool:
    """Whether coverage could read it: the first two questions that it asks have answers."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("select value from meta").fetchone()
            return database.execute("select version from coverage_schema").fetchone() is not None
    except sqlite3.Error:
        return False


def remove_torn(folder: Path) -> int:
    """Remove the files that are not whole. Returns how many there were."""
    torn = [path for path in folder.glob(".coverage.*") if not is_whole(path)]
    for path in torn:
        path.unlink(missing_ok=True)
    return len(torn)
