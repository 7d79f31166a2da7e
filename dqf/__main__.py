"""`dqf` and `python -m dqf`: the command line, with dqf's own packages first."""

import sys

from dqf.packages import load_own


def main() -> None:
    """Run the command line; see `cli.app.main`."""
    try:
        load_own()
        from cli.app import main as run_command
    except KeyboardInterrupt:  # what is imported has nothing to put right
        sys.exit(130)
    run_command()


if __name__ == "__main__":
    main()
