"""Which partition a conversation belongs to: pure, stable for ever, the same in every process."""

from zlib import crc32


def conversation_key(channel_id: str, user_id: str) -> str:
    """Name a conversation: `<channel id>/<user id>`. Channel ids hold no slash, so the name is unique."""
    return f"{channel_id}/{user_id}"


def partition_of(key: str, partitions: int) -> int:
    """Place a conversation key in one of `partitions` partitions, 0 to partitions - 1.

    CRC-32 rather than Python's own hash, which is salted anew in every process.
    """
    return crc32(key.encode()) % partitions


def partition_word(partition: int) -> str:
    """Write a partition as the last word of a routing key: p00, p01, … p15."""
    return f"p{partition:02d}"
