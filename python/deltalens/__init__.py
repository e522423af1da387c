"""deltalens."""
