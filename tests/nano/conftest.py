"""The command line's fixtures, for the commands of nano."""

from tests.cli.conftest import ask, omniqa  # noqa: F401
