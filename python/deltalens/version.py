"""The version, where a module of the package may import it."""

__version__ = "0.1.0"
