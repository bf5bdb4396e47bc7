"""Sets of pictures on disk: miniatures of every published layout, and files that are not what they should be."""

from __future__ import annotations

import gzip
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmreason.dialogue.build import build_dialogue
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.images.base import PictureSizes
from vlmreason.tasks.images.cifar import PIXELS, Cifar10, Cifar100
from vlmreason.tasks.images.image_folders import ImageFolders
from vlmreason.tasks.images.labels import CIFAR10, CIFAR100
from vlmreason.tasks.images.mnist import Mnist, read_idx

SIZES = PictureSizes((144, 144))
BARE = PictureSizes()


def idx(values: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, values.ndim)) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return head + values.astype(np.uint8).tobytes()


def mnist(folder: Path, packed: bool = False, name: str = "-idx") -> dict[str, np.ndarray]:
    """A set of 40 and 12 pictures; returns its pictures and labels."""
    folder.mkdir(exist_ok=True)
    found = {}
    for begin, num in (("train", 40), ("t10k", 12)):
        rng = np.random.default_rng(num)
        arrays = {"images-idx3": rng.integers(0, 256, (num, 28, 28)), "labels-idx1": np.arange(num) % 10}
        for what, array in arrays.items():
            data = idx(array)
            path = folder / f"{begin}-{what.replace('-idx', name)}-ubyte"
            (path.with_name(path.name + ".gz")).write_bytes(gzip.compress(data)) if packed else path.write_bytes(data)
            found[f"{begin}-{what}"] = array
    return found


@pytest.mark.parametrize(("packed", "name"), [(False, "-idx"), (True, "-idx"), (False, ".idx")])
def test_mnist_is_read(tmp_path: Path, packed: bool, name: str) -> None:
    arrays = mnist(tmp_path, packed, name)
    task = Mnist(BARE, data=str(tmp_path))
    assert [task.num_problems("all", split) for split in ("train", "validation", "test")][2] == 12
    assert task.num_problems("all", "train") + task.num_problems("all", "validation") == 40
    for index in range(12):
        state = task.sample("all", "test", index).state
        assert state.label == str(arrays["t10k-labels-idx1"][index])
        assert (task.draw(state)[..., 1] == arrays["t10k-images-idx3"][index]).all()
    assert {task.sample("second_half", "test", index).state.label for index in range(30)} == set("56789")
    assert build_dialogue(task, task.sample("all", "train", 0), "image").prompt == "Which number is in the picture?"
    assert Mnist(SIZES, data=str(tmp_path)).draw(state).shape == (144, 144, 3)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda whole: whole[:-1], "cut off, 31359 bytes where its head says 40 x 28 x 28"),
        (lambda whole: whole + b"x", "too long, 31361 bytes"),
        (lambda whole: whole[:9], "no IDX file of bytes with 3 axes"),
        (lambda whole: b"\0\0\x0d\x03" + whole[4:], "no IDX file of bytes"),
        (lambda whole: idx(np.zeros((39, 28, 28))), "39 pictures and 40 labels of train"),
    ],
)
def test_idx_files_that_are_not_whole_are_named(tmp_path: Path, spoil: Callable[[bytes], bytes], said: str) -> None:
    mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=said):
        Mnist(SIZES, data=str(tmp_path)).sample("all", "train", 0)


def test_packed_files_that_are_cut_off_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(idx(np.zeros((4, 28, 28))))
    for data, said in ((packed[:-9], "cut off"), (b"x" + packed, "damaged")):
        (tmp_path / "a.gz").write_bytes(data)
        with pytest.raises(ValueError, match=said):
            read_idx(tmp_path / "a.gz", 3)
    labels = idx(np.array([3, 11]))
    mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 28, 28))))
    with pytest.raises(ValueError, match="labels of t10k up to 11"):
        Mnist(SIZES, data=str(tmp_path)).entries()


def cifar(folder: Path, kind: type[Cifar10] | type[Cifar100], num: int = 20) -> dict[str, np.ndarray]:
    """A set with `num` rows in each file; returns the rows."""
    rng = np.random.default_rng(0)
    found = {}
    for file in (*kind.files["train"], *kind.files["test"]):
        labels = np.arange(num) % len(kind.all_labels)
        heads = [labels] if kind is Cifar10 else [labels // 5, labels]
        rows = np.concatenate([np.stack(heads, 1), rng.integers(0, 256, (num, PIXELS))], 1).astype(np.uint8)
        (folder / file).write_bytes(rows.tobytes())
        found[file] = rows
    (folder / kind.names).write_text("\n".join(kind.all_labels) + "\n\n")
    return found


@pytest.mark.parametrize(("kind", "num_train"), [(Cifar10, 100), (Cifar100, 20)])
def test_cifar_is_read(tmp_path: Path, kind: type[Cifar10], num_train: int) -> None:
    rows = cifar(tmp_path, kind)[kind.files["test"][0]]
    task = kind(BARE, data=str(tmp_path))
    assert task.num_problems("all", "test") == 20
    assert task.num_problems("all", "train") + task.num_problems("all", "validation") == num_train
    for index in range(20):
        state = task.sample("all", "test", index).state
        assert state.label == kind.all_labels[rows[index, kind.head - 1]].replace("_", " ")
        red, green, blue = rows[index, kind.head :].reshape(3, 32, 32)
        assert (task.draw(state) == np.stack([red, green, blue], axis=2)).all()
    assert task.state_from_json(state_to_json(state)) == state


def test_cifar_that_is_cut_off_or_other_is_named(tmp_path: Path) -> None:
    rows = cifar(tmp_path, Cifar10)
    (tmp_path / "data_batch_3.bin").write_bytes(rows["data_batch_3.bin"].tobytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_3.bin: cut off, 61459 bytes where rows have 3073"):
        Cifar10(SIZES, data=str(tmp_path)).entries()
    (tmp_path / "batches.meta.txt").write_text("\n".join(reversed(CIFAR10)))
    with pytest.raises(ValueError, match="10 labels, other ones than those of cifar10"):
        Cifar10(SIZES, data=str(tmp_path)).entries()
    (tmp_path / "batches.meta.txt").unlink()
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3.bin: cannot be read"):
        Cifar10(SIZES, data=str(tmp_path)).entries()
    (tmp_path / "train.bin").write_bytes(bytes([0, 100]) + bytes(PIXELS))
    (tmp_path / "test.bin").write_bytes(bytes([0, 99]) + bytes(PIXELS))
    with pytest.raises(ValueError, match="label 100, and 0 to 99"):
        Cifar100(SIZES, data=str(tmp_path)).entries()
    assert len(CIFAR100) == 100 and list(CIFAR100) == sorted(CIFAR100)


class Boom:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", [Cifar10, Cifar100])
def test_pickles_are_refused_and_not_opened(
    tmp_path: Path, kind: type[Cifar10], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in kind.pickled:
        (tmp_path / name).write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ValueError, match=rf"pickles .* is not read; the binary version is {kind.archive} at https://"):
        kind(SIZES, data=str(tmp_path)).sample("all", "train", 0)
    assert not (tmp_path / "ran").exists()


def pictures(folder: Path, names: tuple[str, ...], num: int = 6) -> None:
    rng = random.Random(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(num):
            Image.new("RGB", (20, 30), tuple(rng.choices(range(256), k=3))).save(folder / name / f"{number}.png")


def test_folders_per_class_are_read(tmp_path: Path) -> None:
    pictures(tmp_path, ("ibizan_hound", "arctic_fox", "saluki"), 40)
    task = ImageFolders(SIZES, data=str(tmp_path), held_out=0.25)
    assert task.labels == ("arctic fox", "ibizan hound", "saluki")
    counts = [task.num_problems("all", split) for split in ("train", "validation", "test")]
    assert sum(counts) == 120 and min(counts) > 10
    state = task.sample("first_half", "train", 0).state
    assert state.label == "arctic fox" and state.file.startswith("arctic_fox/")
    assert task.draw(state).shape == (144, 144, 3)
    assert task.score(state, "An Arctic fox.").correct


def test_folders_of_splits_are_read(tmp_path: Path) -> None:
    for split, num in (("train", 9), ("val", 4), ("test", 5)):
        pictures(tmp_path / split, ("cat", "dog"), num)
    task = ImageFolders(SIZES, data=str(tmp_path))
    assert [task.num_problems("all", split) for split in ("train", "validation", "test")] == [18, 8, 10]
    assert task.sample("all", "validation", 0).state.file == "val/cat/0.png"


def test_files_that_are_no_pictures_are_counted(tmp_path: Path) -> None:
    pictures(tmp_path, ("cat", "dog"))
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "dog" / "empty.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 14 files are no pictures .*'cat/notes.txt'"):
        ImageFolders(SIZES, data=str(tmp_path)).num_problems("all", "train")
    with pytest.warns(UserWarning, match="2 files are left out"):
        assert sum(len(one) for one in ImageFolders(SIZES, data=str(tmp_path), broken="skip").entries().values()) == 12
    whole = (tmp_path / "cat" / "0.png").read_bytes()
    (tmp_path / "cat" / "0.png").write_bytes(whole[:50])
    task = ImageFolders(SIZES, data=str(tmp_path), broken="skip")
    broken = next(one for one in task.entries()[""] if one.file == "cat/0.png")
    with pytest.raises(ValueError, match=r"task=image_folders: cat/0\.png:"):
        task.draw(broken)


def test_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    pictures(tmp_path / "one", ("cat",))
    with pytest.raises(ValueError, match="1 folders of classes, and two or more"):
        ImageFolders(SIZES, data=str(tmp_path / "one")).sample("all", "train", 0)
    pictures(tmp_path / "case", ("cat", "Cat", "dog"))
    with pytest.raises(ValueError, match="'Cat' and 'cat': they differ in case"):
        ImageFolders(SIZES, data=str(tmp_path / "case")).sample("all", "train", 0)
    with pytest.raises(ValueError, match=r"task.data=.*nowhere: no such folder"):
        ImageFolders(SIZES, data=str(tmp_path / "nowhere")).sample("all", "train", 0)
    with pytest.raises(ValueError, match=r"task.data: missing, the folder of image_folders"):
        ImageFolders(SIZES).sample("all", "train", 0)
    with pytest.raises(ValueError, match=r"task.held_out=0.6"):
        ImageFolders(SIZES, data=str(tmp_path / "one"), held_out=0.6)


def test_links_out_of_the_folder_are_no_pictures(tmp_path: Path) -> None:
    pictures(tmp_path / "set", ("cat", "dog"))
    pictures(tmp_path, ("outside",), 1)
    (tmp_path / "set" / "cat" / "z.png").symlink_to(tmp_path / "outside" / "0.png")
    with pytest.raises(ValueError, match="1 of 13 files are no pictures"):
        ImageFolders(SIZES, data=str(tmp_path / "set")).entries()
