"""Files that are whole or not there at all, JSON Lines, and logs that are only appended to."""
