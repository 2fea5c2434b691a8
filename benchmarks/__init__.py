"""Measurements against peers and physical limits; each writes ``benchmarks/results/<name>.json``."""
