"""`python -m cli`: the `dqf` command from a folder of code, as jobs on a cluster run it."""

from cli.app import main

main()
