"""Implementations of the two forms; none of them imports another."""
