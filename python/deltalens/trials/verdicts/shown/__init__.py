"""How a sweep shows itself: as a table, as rows, and as figures."""
