"""Topics of `deltalens help`, and where their text is."""
