"""Chooses tiling, vectors and threads by rules of thumb and a cost model."""
