"""BLAS on one thread while somebody captions, and on all of its own again when nobody does."""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from threadpoolctl import OpenBLASController, ThreadpoolController

from models.captioner.plain import one_thread

BLAS = ThreadpoolController().select(user_api="blas")


def threads() -> set[int]:
    return {library["num_threads"] for library in BLAS.info()}


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    """Three threads for BLAS, whatever this machine has: what must come back is not what was set."""
    if not BLAS.info():
        pytest.skip("this numpy's BLAS cannot be limited")
    limit = BLAS.limit(limits=3, user_api="blas")
    OpenBLASController.clear_controlling_thread()
    yield
    OpenBLASController.clear_controlling_thread(force=True)
    limit.restore_original_limits()
    OpenBLASController.clear_controlling_thread(force=True)


def enter(pool: ThreadPoolExecutor) -> AbstractContextManager[None]:
    limit = pool.submit(one_thread).result(10)
    pool.submit(limit.__enter__).result(10)
    return limit


def leave(pool: ThreadPoolExecutor, limit: AbstractContextManager[None]) -> None:
    pool.submit(limit.__exit__, None, None, None).result(10)


def test_one_thread_inside_and_all_after() -> None:
    assert threads() == {3}
    with one_thread():
        assert threads() == {1}
        with one_thread():
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {3}


@pytest.mark.parametrize("first_out", [0, 1])
def test_two_threads_whose_blocks_overlap(first_out: int) -> None:
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        for _ in range(3):
            inside = [(a, enter(a)), (b, enter(b))]
            assert threads() == {1}
            leave(*inside.pop(first_out))
            assert threads() == {1}, "the other one is still inside"
            leave(*inside.pop())
            assert threads() == {3}


def test_a_thread_that_ended_inside_another_ones_block() -> None:
    with ThreadPoolExecutor(1) as b:
        with ThreadPoolExecutor(1) as a:
            first = enter(a)
            second = enter(b)
            leave(a, first)
        leave(b, second)
    assert threads() == {3}


def test_an_error_inside_restores_too() -> None:
    with pytest.raises(RuntimeError), one_thread():
        raise RuntimeError
    assert threads() == {3}
