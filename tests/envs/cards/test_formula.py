"""Formulas against values that are computed another way, and against hostile text."""

import functools
import itertools
import operator
import random
import string
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmreason.envs.cards.formula import (
    MAX_CHARS,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_NUMBERS,
    FormulaError,
    complete,
    evaluate,
    join,
    next_pieces,
    solutions,
    solvable,
    solve,
)

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def reachable(numbers):
    """All values of the numbers by taking any two for their result, over and over: another way than the solver's."""
    found, todo = set(), {tuple(sorted(map(Fraction, numbers)))}
    while todo:
        hand = todo.pop()
        if len(hand) == 1:
            found.add(hand[0])
        for i, j in itertools.permutations(range(len(hand)), 2):
            rest = [hand[k] for k in range(len(hand)) if k not in (i, j)]
            for sign, operation in OPERATIONS.items():
                if sign != "/" or hand[j]:
                    todo.add(tuple(sorted([*rest, operation(hand[i], hand[j])])))
    return found


TREES = st.recursive(st.integers(0, 99), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner), max_leaves=8)


def written(tree, rng):
    """A tree as text, with more brackets than needed and spaces, and its value; None where it divides by zero."""
    if isinstance(tree, int):
        return str(tree), Fraction(tree), [tree]
    (left, a, some), (right, b, others) = written(tree[0], rng), written(tree[2], rng)
    undefined = a is None or b is None or (tree[1] == "/" and b == 0)
    space = " " * rng.randrange(2)
    return (
        f"({left}{space}{tree[1]}{space}{right})",
        None if undefined else OPERATIONS[tree[1]](a, b),
        some + others,
    )


@given(TREES, st.randoms(use_true_random=False))
def test_values_are_those_of_the_tree(tree, rng):
    text, value, numbers = written(tree, rng)
    if value is None:
        with pytest.raises(FormulaError, match="division by zero"):
            evaluate(text)
    else:
        found = evaluate(text)
        assert (found.value, list(found.numbers), found.right) == (value, numbers, None)


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 20)), max_size=8), st.integers(0, 20))
def test_products_bind_before_sums_and_the_left_before_the_right(steps, first):
    terms = [Fraction(first)]
    for sign, number in steps:
        if sign in "+-":
            terms.append(Fraction(number if sign == "+" else -number))
        else:
            terms[-1] = OPERATIONS[sign](terms[-1], number)
    assert evaluate(str(first) + "".join(f" {sign}{number}" for sign, number in steps)).value == sum(terms)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not complete"),
        ("   ", "not complete"),
        ("1+", "not complete"),
        ("(1+2", "not closed"),
        ("1+2)", "not expected"),
        ("()", "a number is expected"),
        ("1 2", "2 is not expected"),
        ("(1)(2)", "not expected"),
        ("2(3)", "not expected"),
        ("-1", "a number is expected"),
        ("1--1", "a number is expected"),
        ("2**3", "a number is expected"),
        ("7//2", "a number is expected"),
        ("1/0", "division by zero"),
        ("1/(2-2)", "division by zero"),
        ("01", "digits"),
        ("1" * (MAX_DIGITS + 1), "digits"),
        ("1.5", "belongs to no formula"),
        ("1e9", "belongs to no formula"),
        ("1_0", "belongs to no formula"),
        ("0x1", "belongs to no formula|digits"),
        ("１+2", "belongs to no formula"),
        ("1\n+2", "belongs to no formula"),
        ("1\x00", "belongs to no formula"),
        ("__import__('os')", "belongs to no formula"),
        ("1" + "+1" * MAX_NUMBERS, "at most"),
        ("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "deep"),
        ("1" + " " * MAX_CHARS, "characters"),
        ("1+1=2", "not expected"),
    ],
)
def test_what_is_no_formula_is_named(text, why):
    with pytest.raises(FormulaError, match=why):
        evaluate(text)
    assert issubclass(FormulaError, ValueError)


def test_limits_are_reached():
    deep = "(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH
    assert evaluate(deep).value == 1
    assert evaluate("1" + "+1" * (MAX_NUMBERS - 1)).value == MAX_NUMBERS
    assert evaluate("9" * MAX_DIGITS).numbers == (int("9" * MAX_DIGITS),)


def test_an_equation_gives_its_right_side():
    found = evaluate(" (1+6)*3+13 = 24 ", equation=True)
    assert (found.value, found.numbers, found.right) == (34, (1, 6, 3, 13), 24)
    assert evaluate("4*6", equation=True).right is None
    for text in ("4*6=", "=24", "4*6=24=24", "4*6=20+4", "24=4*6", "4*6=-24", "4*6=(24)", "="):
        with pytest.raises(FormulaError):
            evaluate(text, equation=True)


def test_hostile_text_gives_a_value_or_the_error():
    rng = random.Random(0)
    seeds = ["(1+6)*3+13=24", "8/(3-8/3)", "((((1))))", "10*10/10-2", "9**9**9**9", "1/0"]
    letters = "0123456789+-*/()= .,_" + string.ascii_letters + "\n\t\x00\ud800é×÷−٣１²"
    num_read = 0
    for _ in range(30_000):
        text = list(rng.choice(seeds))
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(text) + 1)
            text[at : at + rng.randrange(2)] = rng.choice(letters) * rng.choice((1, 1, 1, 2, 300))
        equation = rng.random() < 0.5
        try:
            found = evaluate("".join(text), equation)
        except FormulaError as error:
            assert str(error)
        else:
            num_read += 1
            left = "".join(text).partition("=")[0]
            assert set("".join(text)) <= set("0123456789+-*/()= ") and "**" not in left and "//" not in left
            exact = eval(
                "".join(f"Fraction({part})" if part.isdigit() else part for part in split(left)), {"Fraction": Fraction}
            )
            assert found.value == exact
    assert 200 < num_read < 15_000


def split(text):
    parts = []
    for sign in text:
        if sign.isdigit() and parts and parts[-1].isdigit():
            parts[-1] += sign
        elif sign == " ":
            parts.append("")
        else:
            parts.append(sign)
    return parts


def test_deals_are_solved_exactly_where_they_can_be():
    assert solve((3, 3, 8, 8), 24) == "8/(3-8/3)" and evaluate("8/(3-8/3)").value == 24
    assert solve((1, 1, 1, 1), 24) is None and solutions((1, 1, 1, 1), 24) == ()
    assert solve((2, 10, 1, 1), 24) == "2*(10+1+1)"
    rng = random.Random(1)
    for num in (1, 2, 3, 4, 4, 4, 4, 4) * 8:
        numbers, target = [rng.randint(1, 13) for _ in range(num)], rng.choice((12, 24))
        text = solve(numbers, target)
        assert (text is not None) == solvable(numbers, target) == (target in reachable(numbers))
        if text is not None:
            found = evaluate(text)
            assert found.value == target and sorted(found.numbers) == sorted(numbers)


def test_all_solutions_are_right_and_have_no_needless_brackets():
    assert solutions((4, 6), 24) == ("6*4", "4*6") or set(solutions((4, 6), 24)) == {"4*6", "6*4"}
    assert set(solutions((3, 3, 8, 8), 24)) == {"8/(3-8/3)"}
    rng = random.Random(2)
    for _ in range(12):
        numbers = [rng.randint(1, 10) for _ in range(4)]
        found = solutions(numbers, 24)
        assert len(set(found)) == len(found) and bool(found) == solvable(numbers, 24)
        for text in found:
            value = evaluate(text)
            assert value.value == 24 and sorted(value.numbers) == sorted(numbers)
            for start, end in brackets(text):
                bare = text[:start] + text[start + 1 : end] + text[end + 1 :]
                assert not same_tree(text, bare), text


def brackets(text):
    opened, found = [], []
    for at, sign in enumerate(text):
        if sign == "(":
            opened.append(at)
        elif sign == ")":
            found.append((opened.pop(), at))
    return found


def same_tree(one, other):
    """Whether two formulas are worth the same whatever their numbers, by numbers that are drawn at random."""
    rng = random.Random(3)
    for _ in range(4):
        numbers = [f"{rng.randint(1, 10**5)}" for _ in range(8)]
        results = []
        for text in (one, other):
            left = iter(numbers)
            results.append("".join(next(left) if part.isdigit() else part for part in split(text)))
        if evaluate(results[0]).value != evaluate(results[1]).value:
            return False
    return True


def test_operators_can_be_left_out():
    assert solve((5, 7), 12, "+*") == "5+7" and solve((4, 3), 12, "+*") == "4*3"
    assert solve((10, 2), 5, "+*") is None and solve((10, 2), 5) == "10/2"
    assert solutions((2, 6), 12, "+*") in (("2*6", "6*2"), ("6*2", "2*6"))


@pytest.mark.parametrize("num", [0, 7])
def test_the_solver_takes_a_few_numbers(num):
    with pytest.raises(ValueError, match="1 to 6"):
        solve([1] * num, 24)


@functools.cache
def all_formulas(numbers, num_pieces):
    """Every formula of the numbers in that many pieces, with needless brackets too."""
    found = {(str(numbers[0]),)} if len(numbers) == num_pieces == 1 else set()
    if num_pieces > 2:
        found |= {("(", *inner, ")") for inner in all_formulas(numbers, num_pieces - 2)}
    for num in range(1, len(numbers)):
        for some in itertools.combinations(range(len(numbers)), num):
            left = tuple(numbers[i] for i in some)
            right = tuple(numbers[i] for i in range(len(numbers)) if i not in some)
            for at in range(1, num_pieces - 1):
                pairs = itertools.product(all_formulas(left, at), "+-*/", all_formulas(right, num_pieces - 1 - at))
                found |= {(*a, sign, *b) for a, sign, b in pairs}
    return found


def is_worth(pieces, target):
    try:
        return evaluate("".join(pieces)).value == target
    except FormulaError:
        return False


@pytest.mark.parametrize(
    ("numbers", "target", "num_begun"),
    [((3, 8), 24, 3), ((2, 10), 12, 3), ((10, 2), 5, 3), ((1, 9), 8, 3), ((6, 6), 0, 3), ((3, 5, 9), 24, 2)],
)
def test_begun_formulas_are_completed_where_they_can_be(numbers, target, num_begun):
    """Against every formula with up to three pairs of brackets."""
    right = {
        pieces
        for num in range(1, 2 * len(numbers) - 1 + 2 * 3 + 1)
        for pieces in all_formulas(numbers, num)
        if is_worth(pieces, target)
    }
    seen = set()
    for num in range(num_begun + 1):
        begun = {pieces[:num] for pieces in right}
        for pieces in itertools.product([*dict.fromkeys(map(str, numbers)), *"+-*/()"], repeat=num):
            plan = complete(pieces, numbers, target)
            assert (plan is not None) == (pieces in begun), pieces
            seen.add(plan is not None)
    assert seen == {True, False}


def test_next_pieces_keep_a_solution_in_reach():
    rng, num_done = random.Random(5), 0
    for _ in range(150):
        numbers = [rng.randint(1, 10) for _ in range(4)]
        pieces = []
        while len(pieces) < 30:
            good, plan = next_pieces(pieces, numbers, 24), complete(pieces, numbers, 24)
            assert bool(good) == (plan is not None)
            if plan is None:
                break
            found = evaluate(join([*pieces, *plan]))
            assert found.value == 24 and sorted(found.numbers) == sorted(numbers)
            assert (plan == ()) == (good == {"="}) and (not plan or plan[0] in good)
            if not plan:
                num_done += 1
                break
            for piece in [*dict.fromkeys(map(str, numbers)), *"+-*/)"]:
                assert (piece in good) == (complete([*pieces, piece], numbers, 24) is not None)
            pieces.append(rng.choice(sorted(good)))
    assert num_done > 50


def test_any_solution_can_be_written_piece_by_piece():
    rng = random.Random(6)
    for _ in range(15):
        numbers = [rng.randint(1, 10) for _ in range(4)]
        for text in solutions(numbers, 24)[:20]:
            pieces = [part for part in split(text) if part]
            for num in range(len(pieces)):
                assert pieces[num] in next_pieces(pieces[:num], numbers, 24), (text, num)
            assert next_pieces(pieces, numbers, 24) == {"="}


def test_numbers_side_by_side_stay_apart():
    assert join(("1", "0", "+", "(", "2", "3", ")")) == "1 0+(2 3)" and join(()) == ""
    with pytest.raises(FormulaError):
        evaluate(join(("1", "0")))
