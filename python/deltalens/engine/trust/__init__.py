"""Which implementations there are, which of them are right here, and what watches every scan."""
