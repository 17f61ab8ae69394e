"""Benchmarks: `python -m khonsu.bench NAME`. They measure what users run, through the interfaces that users have."""
