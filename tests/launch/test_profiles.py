"""Launch profiles: checked when they are read, and what submitit is told."""

from pathlib import Path

import pytest
from support.launching import write_yaml

from vlmreason.assembly import catalog, sweeps
from vlmreason.launch import slurm
from vlmreason.launch.profiles import Local, Slurm, make_profile, read_profile


@pytest.mark.parametrize("name", catalog.sweep_choices("profile"))
def test_shipped_profiles(name: str) -> None:
    path = catalog.sweep_file("profile", name)
    profile = read_profile(path)
    assert profile.kind == ("local" if name == "local" else "slurm")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert not [line for line in lines[2:] if "  # " not in line], "every key is explained"


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"kind": "slrum", "minutes": 5}, r"kind=slrum: allowed are local, slurm \(did you mean 'slurm'\?\)"),
        ({"minutes": 5}, "kind=None: allowed are local, slurm"),
        ({"kind": "slurm", "minutes": 5, "partitoin": "a"}, r"partitoin: no such key; .*did you mean 'partition'"),
        ({"kind": "slurm"}, "minutes: missing"),
        ({"kind": "slurm", "minutes": "12:00:00"}, "minutes='12:00:00': int is expected"),
        ({"kind": "slurm", "minutes": 3}, "signal_lead=180: less than 180 s is expected"),
        ({"kind": "slurm", "minutes": 5, "nodes": 0}, "nodes=0: 1 or more is expected"),
        ({"kind": "local", "parallel": 0}, "parallel=0: 1 or more is expected"),
        ({"kind": "local", "minutes": 5}, "minutes: no such key"),
        (["kind"], "kind=None"),
    ],
)
def test_mistakes_in_a_profile(data: object, names: str) -> None:
    with pytest.raises(ValueError, match=names) as raised:
        make_profile(data, "mine.yaml")
    assert str(raised.value).startswith("mine.yaml: ")
    assert "\n" not in str(raised.value)


def test_a_profile_changes_no_run(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "mine.yaml", kind="local", trainer={"precison": "32-true"})
    with pytest.raises(ValueError, match=r"trainer\.precison: is no launch setting; there are .*devices"):
        sweeps.launch_profile(str(path))
    path = write_yaml(tmp_path / "mine.yaml", kind="local", trainer={"device": 2})
    with pytest.raises(ValueError, match="did you mean 'devices'"):
        sweeps.launch_profile(str(path))


def test_one_process_per_gpu() -> None:
    profile = Slurm(kind="slurm", minutes=60, nodes=2, gpus_per_node=4, trainer={"strategy": "ddp"})
    assert profile.launch_trainer == {"progress": False, "devices": 4, "num_nodes": 2, "strategy": "ddp"}
    assert slurm._parameters(Path("/s"), profile, "x")["ntasks_per_node"] == 4
    assert Slurm(kind="slurm", minutes=60).launch_trainer["devices"] == 1
    assert Local(kind="local", gpus_per_job=2, threads=3).launch_trainer["devices"] == 2


def test_batch_script(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    from submitit.slurm.slurm import _make_sbatch_string

    profile = Slurm(
        kind="slurm", minutes=90, partition="gpu", account="me", qos="high", constraint="a100", nodes=2, memory="64GB",
        gpus_per_node=4, cpus_per_task=6, array_parallelism=3, signal_lead=120, modules=("cuda/12.8",),
        setup=("export HF_HUB_OFFLINE=1",), sbatch={"mail-type": "FAIL"}, srun=("--label",),
    )  # fmt: skip
    parameters = slurm._parameters(tmp_path / "my sweep", profile, "s2h")
    text = _make_sbatch_string("python", tmp_path, map_count=9, **parameters)  # type: ignore[arg-type]
    for flag in (
        "account=me", "array=0-8%3", "constraint=a100", "cpus-per-task=6", "gpus-per-node=4", "job-name=s2h",
        "mail-type=FAIL", "mem=64GB", "nodes=2", "ntasks-per-node=4", "partition=gpu", "qos=high", "requeue",
        "signal=USR2@120", "time=90",
    ):  # fmt: skip
        assert f"#SBATCH --{flag}\n" in text, flag
    lines = text.splitlines()
    assert lines.index("module load cuda/12.8") < lines.index("export HF_HUB_OFFLINE=1")
    source = next(i for i, line in enumerate(lines) if line.startswith("export PYTHONPATH='"))
    run = next(i for i, line in enumerate(lines) if line.startswith("srun ") and "--kill-on-bad-exit=1" in line)
    assert lines.index("export HF_HUB_OFFLINE=1") < source < run < lines.index("code=$?")
    assert "--label" in lines[run]
    assert slurm._python(Slurm(kind="slurm", minutes=9, container="/i m.sif")).startswith(
        "apptainer exec --nv '/i m.sif'"
    )
