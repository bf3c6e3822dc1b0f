"""Floors: the least that the machine needs for a part of the work, each a process of its own."""
