"""Weights are found by run and phase, and told apart by their content."""

import pytest

from vlmreason.evaluation.checkpoints import checkpoint_digest, find_checkpoint


def model(directory, weights=b"w"):
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(weights)
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
    assert find_checkpoint(align) == align
    with pytest.raises(ValueError, match="did you mean 'align'"):
        find_checkpoint(tmp_path, "alignn")
    with pytest.raises(ValueError, match="no effect"):
        find_checkpoint(align, "align")


def test_absent_and_empty_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such directory"):
        find_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="no finished phase"):
        find_checkpoint(tmp_path)


def test_digest_depends_on_content_alone(tmp_path):
    one, same = model(tmp_path / "one"), model(tmp_path / "same")
    other = model(tmp_path / "other", b"v")
    assert checkpoint_digest(one) == checkpoint_digest(same) != checkpoint_digest(other)
    (same / "config.json").write_text("{ }")
    assert checkpoint_digest(one) != checkpoint_digest(same)
