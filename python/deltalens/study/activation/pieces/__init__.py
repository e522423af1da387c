"""Sums over texts, found piece by piece by one process or more, and kept until all are there."""
