"""Which extra of pagedkv brings a module that is not installed. Imports nothing of any extra."""

_EXTRAS = {
    "matplotlib": "plot",
    "msgspec": "events",
    "prometheus_client": "metrics",
    "zmq": "events",
}


def missing_module(error: ImportError) -> str | None:
    """Says in a line what to install; None if it is no module of others that is missed."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    if cause is None or cause.name is None:
        return None
    package = cause.name.split(".")[0]
    if package == "pagedkv":
        return None
    extra = _EXTRAS.get(package, "serve")
    return f"{cause.name} is not installed: run pip install 'pagedkv[{extra}]'"
