"""The one exception for whatever a user, a file or a parameter can cause, and how it quotes others."""


class InputError(ValueError):
    """Something given to anna is wrong: the message holds the value, the place and the remedy.

    `log.run_stage` prints it as a single line; every other exception is a bug of ours and keeps its traceback.
    """


def one_line(value: object) -> str:
    """Return what `value` says, such as another library's error, in one line of 300 characters at most."""
    return " ".join(str(value).split())[:300]
