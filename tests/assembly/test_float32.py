"""The nano scale computes in float32 everywhere, the papers' in bfloat16; a run says otherwise by one setting."""

import subprocess
import sys

import pytest
from support.composing import compose_plain

from vlmreason.assembly import build


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ((), "32-true"),
        (("algorithm=grpo",), "32-true"),
        (("scale=paper",), "bf16-mixed"),
        (("trainer.precision=bf16-mixed",), "bf16-mixed"),
        (("scale=paper", "trainer=float32"), "32-true"),
    ],
)
def test_precision_goes_with_the_scale(words: tuple[str, ...], precision: str) -> None:
    assert build.build_trainer(compose_plain("train", *words)).precision == precision


@pytest.mark.parametrize("given", [None, "active"])
def test_threads_wait_asleep_unless_told_otherwise(given: str | None) -> None:
    code = "import os, sys, vlmreason.__main__ as m; sys.argv = ['vlmreason', '--version']\n"
    code += "try: m.main()\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    env = {"PATH": "", "PYTHONPATH": ":".join(sys.path)} | ({"OMP_WAIT_POLICY": given} if given else {})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{given or 'PASSIVE'} False"
