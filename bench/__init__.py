"""Benchmarks of what runs for every request and for every list."""
