"""Templates of jinja2 that lie beside the code: a name that is not given is an error, and tags leave no blank lines."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(*, autoescape: bool, keep_trailing_newline: bool = False) -> Environment:
    """Return what loads the templates; filters are the caller's to add.

    Args:
        autoescape: Escape every text for HTML.
        keep_trailing_newline: End as the template does, and not one line break shorter.
    """
    return Environment(
        loader=PackageLoader("anna.reporting", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=autoescape,
        keep_trailing_newline=keep_trailing_newline,
    )
