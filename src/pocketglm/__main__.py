"""`python -m pocketglm`: the same as the command `pocketglm`."""

from __future__ import annotations

from pocketglm.cli.main import main

if __name__ == "__main__":
    main()
