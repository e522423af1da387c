"""What a sweep is asked for, held against the models and what is on disk."""
