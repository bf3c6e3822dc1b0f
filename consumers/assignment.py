"""Assignment: which worker serves which partitions, the same answer for all who ask. Pure.

Rendezvous hashing (Thaler and Ravishankar, 1998) with bounded loads: each pair of a partition and a worker has
a score, the best scores win, and nobody gets more than one partition more than another.
"""

from collections.abc import Collection
from functools import lru_cache
from hashlib import blake2b


def assign(partitions: int, workers: Collection[str]) -> dict[str, frozenset[int]]:
    """Share out partitions, counted from 0, among workers; each has its share, though it may be empty."""
    return dict(_assigned(partitions, frozenset(workers)))


@lru_cache(maxsize=64)
def _assigned(partitions: int, workers: frozenset[str]) -> tuple[tuple[str, frozenset[int]], ...]:
    if not workers:
        return ()
    least, left_over = divmod(partitions, len(workers))
    shares: dict[str, set[int]] = {worker: set() for worker in workers}
    free = set(range(partitions))
    pairs = [(_score(partition, worker), partition, worker) for partition in free for worker in workers]
    for _, partition, worker in sorted(pairs, reverse=True):
        held = len(shares[worker])
        if partition not in free or held > least or (held == least and not left_over):
            continue
        left_over -= held == least
        shares[worker].add(partition)
        free.discard(partition)
    return tuple((worker, frozenset(share)) for worker, share in shares.items())


def _score(partition: int, worker: str) -> bytes:
    return blake2b(f"{partition}/{worker}".encode(), digest_size=8).digest()
