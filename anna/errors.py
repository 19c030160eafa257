"""The one exception for whatever a user, a file or a parameter can cause."""


class InputError(ValueError):
    """Something given to anna is wrong: the message holds the value, the place and the remedy.

    `log.run_stage` prints it as a single line; every other exception is a bug of ours and keeps its traceback.
    """
