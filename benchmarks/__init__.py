"""How fast the generator is, beside its peers, and what it should cost. Not installed; run from the repository.

`python -m benchmarks.compare` (or `make bench`) measures peers side by side, `python -m benchmarks.curves` how time
grows; `python -m benchmarks.cost_tables` prints what the arithmetic says. The released code comes in through
tests/official.py.
"""
