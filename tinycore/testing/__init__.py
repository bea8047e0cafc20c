"""What authors of plugins test with: random tensor graphs for hypothesis, an oracle, comparisons.

Import the modules themselves: `strategies` needs hypothesis, `oracle` and `compare` need numpy only.
"""
