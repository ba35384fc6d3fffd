"""Mistakes a user can make and put right."""


class UserError(Exception):
    """One line: what is wrong, and what to do. Scripts print it and exit with code 2.

    >>> import mmgan
    >>> try:
    ...     mmgan.load("nowhere")
    ... except mmgan.UserError as error:
    ...     print(error)
    nowhere is no run: it has no config.yaml
    """
