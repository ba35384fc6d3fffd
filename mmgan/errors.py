"""Mistakes a user can make and mend."""


class UserError(Exception):
    """One line: what is wrong, and what to do. Scripts print it and exit with code 2."""
