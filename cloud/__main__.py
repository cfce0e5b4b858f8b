"""`python -m cloud`: the same as the `twin-cloud` command."""

from cloud.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
