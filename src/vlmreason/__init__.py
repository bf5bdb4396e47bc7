"""Experiments on how vision-language models learn to reason."""

__version__ = "0.1.0"
