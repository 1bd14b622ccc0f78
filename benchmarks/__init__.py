"""How fast the generator is, beside its peers, and what it should cost. Not installed; run from the repository.

`python -m benchmarks.compare` (or `make bench`) measures peers side by side, on a CPU or a GPU, `python -m
benchmarks.parity` whether another device or precision finds the same masks, `python -m benchmarks.gpu_check` (or
`make gpu-check`) whether a GPU is right, `python -m benchmarks.throughput` (or `make gpu-throughput`) how many images a
worker does on it in a second, `python -m benchmarks.curves` how time grows, `python -m benchmarks.planning`
how long a run's plan takes; `python -m benchmarks.cost_tables` and `python -m benchmarks.bounds` print what the
arithmetic says. The released code comes in through benchmarks/reference/.
"""
