"""`python -m ingest`, and the command: Ctrl-C is answered from the first moment on."""

import sys


def main() -> None:
    """See `ingest.cli.main`."""
    try:
        from ingest.cli import main as run
    except KeyboardInterrupt:  # nothing is there yet that could say so
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
