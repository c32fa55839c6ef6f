"""A GPU node: joins the queue from anywhere, with nothing but the broker's URL."""

from importlib.metadata import version

__version__ = version("fanfare")
