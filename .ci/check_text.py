# SPDX-License-Identifier: BSD-3-Clause
"""Check what no formatter does: SPDX lines, ASCII, long lines, white space."""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".ci", ".github", "bench", "csrc", "docs", "python", "tests")
SOURCE = {".py", ".pyi", ".h", ".cpp", ".cu", ".cuh", ".toml", ".txt", ".yml", ".yaml", ""}
CHECKED_BY_RUFF = {".py", ".pyi"}
PROSE = {".md", ".cff"}
WITHOUT_SPDX = {"LICENSE", "py.typed"}
MAX_COLUMNS = 100


def text_files() -> Iterator[Path]:
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and path.name != ".coverage":
            yield path
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT / folder).parts
            cached = any(part.startswith((".", "__pycache__")) for part in parts)
            if path.is_file() and not cached:
                yield path


def complaints(path: Path) -> Iterator[str]:
    if path.suffix not in SOURCE | PROSE:
        return
    text = path.read_text(encoding="utf-8")
    needs_spdx = path.suffix in SOURCE and path.name not in WITHOUT_SPDX and text
    if needs_spdx and "SPDX-License-Identifier: BSD-3-Clause" not in text[:200]:
        yield "1: no line 'SPDX-License-Identifier: BSD-3-Clause' on top"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield "end: the file must end with one newline"
    for number, line in enumerate(text.split("\n"), start=1):
        if line != line.rstrip():
            yield f"{number}: white space at the end of the line"
        if not line.isascii():
            yield f"{number}: a character that is not ASCII"
        if path.suffix in SOURCE - CHECKED_BY_RUFF and len(line) > MAX_COLUMNS:
            yield f"{number}: more than {MAX_COLUMNS} columns"
        if "\t" in line and path.name != "Makefile":
            yield f"{number}: a tab"


def main() -> int:
    failed = False
    for path in text_files():
        for complaint in complaints(path):
            failed = True
            print(f"{path.relative_to(ROOT)}:{complaint}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
