"""Commands as files: written beside what they made, and read in the place of options."""
