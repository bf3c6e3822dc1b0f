"""Partitions are shared out completely, evenly, alike for all who ask, and few move when workers come and go."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.assignment import assign

WORKERS = st.sets(st.text("0123456789abcdef", min_size=1, max_size=8), min_size=1, max_size=24)
PARTITIONS = st.integers(1, 100)


@given(PARTITIONS, WORKERS)
def test_each_partition_has_one_worker_and_no_worker_more_than_one_above_another(
    partitions: int, workers: set[str]
) -> None:
    shares = assign(partitions, workers)
    assert set(shares) == workers
    assert sorted(partition for share in shares.values() for partition in share) == list(range(partitions))
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(PARTITIONS, WORKERS, st.randoms())
def test_all_who_ask_get_the_same_answer(partitions: int, workers: set[str], random: object) -> None:
    shuffled = list(workers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(partitions, shuffled) == assign(partitions, sorted(workers))


@given(PARTITIONS, WORKERS)
def test_a_worker_that_joins_takes_its_share_and_little_else_moves(
    partitions: int, workers: set[str]
) -> None:
    before = assign(partitions, workers)
    after = assign(partitions, workers | {"newcomer"})
    moved = sum(len(before[worker] - after[worker]) for worker in workers)
    share = -(-partitions // (len(workers) + 1))
    assert moved <= 2 * share + len(workers)


def test_nobody_serves_nothing() -> None:
    assert assign(16, []) == {}


def test_sixteen_partitions_of_two_three_and_four_workers() -> None:
    for count in (2, 3, 4):
        sizes = sorted(len(share) for share in assign(16, [f"w{n}" for n in range(count)]).values())
        assert sizes == {2: [8, 8], 3: [5, 5, 6], 4: [4, 4, 4, 4]}[count]
