"""Mistakes that a user can make and fix."""


class UserError(Exception):
    """One line that says what is wrong and what to do. Scripts print it and exit with code 2.

    Examples:
        >>> import mmgan
        >>> try:
        ...     mmgan.load("nowhere")
        ... except mmgan.UserError as error:
        ...     print(error)
        nowhere is not a run: it has no config.yaml
    """
