"""The tasks that sample their problems: those that the tests of every task are about."""

from vlmreason.assembly import catalog

READ_FROM_FILES = (
    "llava_data",
    "smart101",
    "raven_files",
    "marvel_files",
    "mnist",
    "cifar10",
    "cifar100",
    "image_folders",
    "mmvp_files",
    "mmvp_vlm_files",
)
"""Tasks whose problems are files of the user's: nothing to check without them (they have tests of their own)."""

TASKS = tuple(name for name in catalog.groups()["task"] if name not in READ_FROM_FILES)
