"""`python -m hyblink`: the same as the `hyblink` command."""

from hyblink.app.cli.main import main

main()
