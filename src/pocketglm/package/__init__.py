"""The package: one directory that every engine reads in place. `docs/package-format.md` is the contract."""
