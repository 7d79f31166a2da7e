"""`dqf` and `python -m dqf`: the command line, with dqf's own packages first."""

from dqf.packages import load_own


def main() -> None:
    """Run the command line; see `cli.app.main`."""
    load_own()
    from cli.app import main as run_command

    run_command()


if __name__ == "__main__":
    main()
