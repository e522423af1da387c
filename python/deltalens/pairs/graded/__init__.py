"""Answers sampled and graded elsewhere: rows, what their grades mean, and pairs of them."""
