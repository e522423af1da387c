"""From a run directory to figures and one HTML page."""
