"""The tasks that sample their problems: those that the tests of every task are about."""

from vlmreason.assembly import catalog

READ_FROM_FILES = ("llava_data",)
"""Tasks whose problems are a file of the user's: nothing to check without one (see tests/tasks/test_llava_data.py)."""

TASKS = tuple(name for name in catalog.groups()["task"] if name not in READ_FROM_FILES)
