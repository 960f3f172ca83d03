"""`python -m messagehub` is the command `messagehub`."""

from messagehub.cli.main import main

main()
