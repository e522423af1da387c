"""The best k of a stream of scores, and of intervals in which scores lie."""
