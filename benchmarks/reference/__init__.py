"""Public implementations of Segment Anything behind our interfaces: peers of the benchmarks, oracles of the tests."""
