"""vLLM as an engine: its workers add a table of directions, one row of it to each request.

vLLM is no dependency of this package; it is imported where an engine is made.
"""
