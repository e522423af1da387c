"""What work costs: said before it begins, measured while it goes, and known without doing it."""
