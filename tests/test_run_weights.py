"""Weights are found by run and phase, and told apart by their content."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from vlmreason.runs import checkpoint_digest, find_checkpoint


def model(directory, weight=0.0):
    directory.mkdir(parents=True)
    save_file({"weight": np.full(10, weight, np.float32)}, directory / "model.safetensors")
    (directory / "config.json").write_text("{}")
    return directory


def test_checkpoint_of_a_run_is_found_by_phase(tmp_path):
    align, final = model(tmp_path / "checkpoints" / "align"), tmp_path / "checkpoints" / "final"
    model(tmp_path / "checkpoints" / ".final.tmp")
    with pytest.raises(ValueError, match="not finished; finish it, or choose phase=align"):
        find_checkpoint(tmp_path)
    model(final)
    assert find_checkpoint(tmp_path) == final
    assert find_checkpoint(tmp_path, "align") == align
    with pytest.raises(ValueError, match="did you mean 'align'"):
        find_checkpoint(tmp_path, "alignn")


def test_absent_and_empty_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such directory"):
        find_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="no finished phase"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 60, 100])
def test_cut_off_weights_are_refused(tmp_path, size):
    weights = model(tmp_path / "checkpoints" / "final") / "model.safetensors"
    content = weights.read_bytes()
    assert len(content) > 100
    weights.write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"model\.safetensors: the weights are damaged"):
        find_checkpoint(tmp_path)


def test_digest_depends_on_content_alone(tmp_path):
    one, same = model(tmp_path / "one"), model(tmp_path / "same")
    other = model(tmp_path / "other", 1.0)
    assert checkpoint_digest(one) == checkpoint_digest(same) != checkpoint_digest(other)
    (same / "config.json").write_text("{ }")
    assert checkpoint_digest(one) != checkpoint_digest(same)
