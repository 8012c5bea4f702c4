"""Benchmarks: vmwright against what users would pick instead."""
