"""Several processes on one piece of work: what each does, and how what they found is put together.

Everything is dealt in pieces that do not depend on how many processes there are, and put together
in the order of the pieces, so that results are the same to the bit for any number of them.
"""
