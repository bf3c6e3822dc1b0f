"""Benchmarks: what Postbote does a second, beside what the same machine does without it, in the same run."""
