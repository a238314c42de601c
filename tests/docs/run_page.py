"""Run the Python blocks of one page, in order and in one namespace, as a reader would: `run_page.py PAGE`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from pages import blocks  # beside this file


def main(path: str) -> None:
    page = ModuleType("__main__")
    sys.modules["__main__"] = page
    for block in blocks(Path(path)):
        if block.language == "python":
            code = compile("\n" * block.line + block.text, path, "exec", dont_inherit=True)
            exec(code, vars(page))


if __name__ == "__main__":
    main(sys.argv[1])
