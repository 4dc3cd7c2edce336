"""`python -m omniqa` is `omniqa`."""

from omniqa.cli.app import main

main()
