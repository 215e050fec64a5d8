"""Benches of adgan_fast: throughput beside peers, and scaling. Run with ``pytest bench/``; see docs/benchmarks.md."""
