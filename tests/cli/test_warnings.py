"""What the package warns of is said as its errors are."""

import warnings

from vlmreason.cli import runner
from vlmreason.tasks import base


def test_own_warnings_are_one_line_and_others_as_python_has_them():
    assert runner._warning("there are 3 problems", UserWarning, base.__file__, 1) == "vlmreason: there are 3 problems\n"
    other = runner._warning("odd", UserWarning, warnings.__file__, 1)
    assert other.startswith(f"{warnings.__file__}:1: UserWarning: odd")
