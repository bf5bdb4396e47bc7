"""Steps of a phase: each example once, any cut into micro-batches, any worker, any rank, from any step."""

import itertools
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import nano_task, plan, processor, tiny_learner

from vlmreason.data.loader import (
    COST_STEP,
    LENGTH_STEP,
    PASS_COST,
    Packing,
    StepData,
    pack,
    pack_by_cost,
    pack_rows,
    step_loader,
)
from vlmreason.data.mixture import Mixture
from vlmreason.models.vlm.processor import Encoded

NUM = 23


def mixture(num_examples: int = NUM, **part: Any) -> Mixture:
    parts = {"simple": {"level": "simple", "views": ["text", "image", "image_via_text"]} | part}
    return Mixture(plan(only={"num_examples": num_examples, "parts": parts}), "only", "table_readout", seed=0)


def step_data(mixture: Mixture, batch_size: int = 8, micro_tokens: int = 900, **options: Any) -> StepData:
    tasks = {"table_readout": nano_task()}
    return StepData(mixture, tasks, processor(), batch_size, micro_tokens, options.pop("max_length", 1024), **options)


def rows(step: dict[str, Any]) -> list[tuple[int, ...]]:
    """The examples of a step: their tokens, without padding."""
    found = []
    for micro in step["micro_batches"]:
        for ids, mask in zip(micro["input_ids"], micro["attention_mask"], strict=True):
            found.append(tuple(ids[mask.bool()].tolist()))
    return found


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    counts = ("num_targets", "num_tokens", "num_examples")
    micros = zip(a["micro_batches"], b["micro_batches"], strict=True)
    return all(a[key] == b[key] for key in counts) and all(
        x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in micros
    )


def test_steps_hold_every_example_once_and_in_order() -> None:
    data = step_data(mixture())
    assert len(data) == data.num_steps == 3
    for number in range(3):
        step = data[number]
        expected = [tuple(data.encode(i).input_ids) for i in range(8 * number, min(8 * number + 8, NUM))]
        assert Counter(rows(step)) == Counter(expected)
        assert step["num_examples"] == len(expected)
        assert step["num_tokens"] == sum(map(len, expected))
        assert step["num_targets"] == sum(int((m["labels"] >= 0).sum()) for m in step["micro_batches"])
    assert len(set(map(data.mixture.__getitem__, range(NUM)))) == NUM


@pytest.mark.parametrize("micro_tokens", [1, 500, 900, 10**9])
def test_micro_batches_keep_to_the_bound(micro_tokens: int) -> None:
    for micro in step_data(mixture(), NUM, micro_tokens, cut="shapes")[0]["micro_batches"]:
        num, length = micro["input_ids"].shape
        assert num == 1 or num * length <= micro_tokens
        assert length % LENGTH_STEP == 0
        assert bin(num).count("1") == 1, "few shapes"
        images = (micro["input_ids"] == processor().pictures.placeholder_id).any(1).sum()
        assert len(micro.get("pixel_values", [])) == images


def test_pack_keeps_every_example() -> None:
    examples = [Encoded([7] * length, [1] * length, None) for length in (5, 300, 17, 17, 90, 2, 64, 65, 1)]
    for micro_tokens in (1, 64, 200, 1000, 10**6):
        parts = pack(examples, micro_tokens)
        assert sorted(map(len, itertools.chain(*parts))) == sorted(map(len, examples))
        for part in parts:
            assert len(part) == 1 or len(part) * -(-len(part[0]) // LENGTH_STEP) * LENGTH_STEP <= micro_tokens
    assert pack([], 100) == []


@pytest.mark.parametrize("micro_tokens", [1, 300, 900, 10**9])
def test_cut_by_cost_keeps_every_example_and_pads_less(micro_tokens: int) -> None:
    steps = {cut: step_data(mixture(), NUM, micro_tokens, cut=cut)[0] for cut in ("shapes", "cost")}
    assert Counter(rows(steps["cost"])) == Counter(rows(steps["shapes"]))
    for micro in steps["cost"]["micro_batches"]:
        num, length = micro["input_ids"].shape
        assert length % COST_STEP == 0 and (num == 1 or num * length <= micro_tokens)
        assert len(micro.get("pixel_values", [])) in (0, num), "texts and pictures are apart"
    cost = {cut: step["num_padded"] + PASS_COST * len(step["micro_batches"]) for cut, step in steps.items()}
    assert cost["cost"] <= cost["shapes"] or micro_tokens == 10**9  # a pass of both kinds saves one there
    assert pack_by_cost([], 100) == []


def test_cut_by_cost_is_the_best_cut() -> None:
    examples = [Encoded([7] * length, [1] * length, None) for length in (5, 300, 17, 90, 2, 64, 65)]
    ordered = sorted(examples, key=len)

    def cost(parts: list[list[Encoded]]) -> int:
        return sum(len(part) * -(-len(part[-1]) // COST_STEP) * COST_STEP + PASS_COST for part in parts)

    cuts = itertools.chain(*(itertools.combinations(range(1, len(ordered)), n) for n in range(len(ordered))))
    every = [[ordered[a:b] for a, b in itertools.pairwise((0, *cut, len(ordered)))] for cut in cuts]
    assert cost(pack_by_cost(examples, 10**6)) == min(map(cost, every))


def test_cut_changes_neither_loss_nor_gradient() -> None:
    found = []
    for cut, micro_tokens in (("shapes", 10**9), ("shapes", 900), ("cost", 900), ("cost", 1)):
        learner = tiny_learner()
        step = step_data(mixture(), micro_tokens=micro_tokens, cut=cut)[0]
        loss = 0.0
        for micro in step["micro_batches"]:
            part = learner.token_losses(micro)[0].sum() / step["num_targets"]
            part.backward()
            loss += part.item()
        gradient = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])
        found.append((len(step["micro_batches"]), loss, gradient))
    assert len({num for num, _, _ in found}) >= 3
    for _, loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][2], rtol=1e-3, atol=1e-6)
    assert found[0][2].abs().max() > 1e-3


def test_workers_give_the_same_steps() -> None:
    data = step_data(mixture(), batch_size=4)
    alone = list(step_loader(data, 0))
    assert len(alone) == 6
    for num_workers in (1, 2):
        steps = list(step_loader(data, num_workers))
        assert all(same(a, b) for a, b in zip(alone, steps, strict=True))


def test_first_step_goes_on() -> None:
    whole = step_data(mixture(), batch_size=4)
    for first_step in range(6):
        rest = step_data(mixture(), batch_size=4, first_step=first_step)
        assert rest.num_steps == 6
        assert len(rest) == 6 - first_step
        assert all(same(rest[i], whole[first_step + i]) for i in range(len(rest)))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_a_step(world_size: int) -> None:
    whole = step_data(mixture())
    ranks = [step_data(mixture(), rank=rank, world_size=world_size) for rank in range(world_size)]
    for number in range(3):
        steps = [data[number] for data in ranks]
        assert Counter(itertools.chain(*map(rows, steps))) == Counter(rows(whole[number]))
        for key in ("num_targets", "num_tokens", "num_examples"):
            assert sum(step[key] for step in steps) == whole[number][key]
        assert all(step["num_examples"] for step in steps)


def test_too_long_example() -> None:
    data = step_data(mixture(), max_length=100)
    sentence = r"^table_readout-simple-train-\d+ \(\w+\) has \d+ tokens: more than trainer.max_length=100$"
    with pytest.raises(ValueError, match=sentence):
        data[0]


def test_texts_begin_where_the_part_says() -> None:
    data = step_data(mixture(views=["text"], begins=[3, 30]))
    places = [data.encode(number).begins_at for number in range(NUM)]
    assert places == [step_data(mixture(views=["text"], begins=[3, 30])).encode(n).begins_at for n in range(NUM)]
    assert 3 <= min(places) < max(places) <= 30 and len(set(places)) > NUM // 3
    first = [place for micro in data[0]["micro_batches"] for place in micro["position_ids"][:, 0].tolist()]
    assert sorted(first) == sorted(places[:8])
    longest = max(len(data.encode(number)) + places[number] for number in range(8))
    with pytest.raises(ValueError, match=rf"behind position \d+: more than trainer.max_length={longest - 1}$"):
        step_data(mixture(views=["text"], begins=[3, 30]), max_length=longest - 1)[0]


def test_nothing_grows_with_the_number_of_examples() -> None:
    started = time.process_time()
    data = step_data(mixture(num_examples=10**9), batch_size=2)
    assert data.num_steps == 5 * 10**8
    step = next(iter(step_loader(data, 0)))
    far = step_data(mixture(num_examples=10**9), batch_size=2, first_step=5 * 10**8 - 1)
    last = next(iter(step_loader(far, 0)))
    assert step["num_examples"] == last["num_examples"] == 2
    assert not same(step, last)
    assert time.process_time() - started < 2, "seconds; listing the examples would take minutes"


def test_thought_kept_reaches_the_tokens() -> None:
    data = step_data(mixture(thought_kept=0.0, views=["text"]))
    whole = step_data(mixture(views=["text"]))
    assert {s for i in range(8) for s in data.encode(i).segments} == {0, 3}
    assert {s for i in range(8) for s in whole.encode(i).segments} == {0, 2, 3}


@pytest.mark.parametrize("packing", ["rows", "row"])
def test_packed_equals_unpacked(packing: Packing) -> None:
    """Losses of the same tokens and the gradient, with several dialogues and pictures in a row."""
    found = []
    for how in (None, packing):
        learner = tiny_learner()
        step = step_data(mixture(), micro_tokens=900, packing=how)[0]
        losses = [learner.token_losses(micro)[0] for micro in step["micro_batches"]]
        (torch.cat(losses).sum() / step["num_targets"]).backward()
        gradient = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])
        found.append((torch.cat(losses).detach().sort().values, gradient, step))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)
    plain, packed = (step for _, _, step in found)
    assert sum(len(micro["input_ids"]) for micro in packed["micro_batches"]) < plain["num_examples"]
    assert all("attention_mask" not in micro for micro in packed["micro_batches"])
    assert packed["num_padded"] < plain["num_padded"]
    assert {key: packed[key] for key in ("num_targets", "num_tokens", "num_images", "num_examples")} == {
        key: plain[key] for key in ("num_targets", "num_tokens", "num_images", "num_examples")
    }


def test_packed_rows_hold_every_example_and_keep_to_the_bound() -> None:
    examples = [Encoded([7] * length, [1] * length, None) for length in (5, 300, 17, 17, 90, 2, 64, 65, 1)]
    for micro_tokens in (1, 200, 700, 10**4):
        for one_row in (True, False):
            batches = pack_rows(examples, micro_tokens, one_row)
            flat = [example for rows in batches for row in rows for example in row]
            assert sorted(map(len, flat)) == sorted(map(len, examples))
            for rows in batches:
                assert len(rows) == 1 or len(rows) * max(sum(map(len, row)) for row in rows) <= micro_tokens
                assert not one_row or len(rows) == 1
    assert pack_rows([], 100, True) == []


@pytest.mark.slow
def test_an_error_of_a_worker_is_one_sentence_and_does_not_keep_the_process_alive() -> None:
    """In a process of its own: what hung was its end."""
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *filter(None, sys.path)]}\n"
        "from test_loader import mixture, step_data, step_loader\n"
        "kept = iter(step_loader(step_data(mixture(), max_length=20), 1))\n"
        "try: next(kept)\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(r"table_readout-\S+ \(\w+\) has \d+ tokens: more than trainer.max_length=20\n", done.stdout)
    assert done.stderr == ""


def test_too_little_shared_memory_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(ValueError, match=r"^/dev/shm: too little room .*trainer.num_workers=0"):
        next(iter(step_loader(step_data(mixture()), 1)))
    assert next(iter(step_loader(step_data(mixture()), 0)))["num_examples"] == 8
