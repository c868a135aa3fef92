"""Versions of the libraries whose arithmetic makes a portrait."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("consistentid", "diffusers", "peft", "torch", "transformers")


@cache
def library_versions(*more: str) -> dict[str, str]:
    """Version of this package and of the libraries below it; `unknown` for a package that is not installed.

    Args:
        *more: further libraries that took part.
    """
    return {name: _version(name) for name in (*_LIBRARIES, *more)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
