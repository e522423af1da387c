"""The sums that a study is kept in."""
