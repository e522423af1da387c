"""Commands that run others again: the jobs of an array, and runs."""
