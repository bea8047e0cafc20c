"""One kernel to one program: indexing, tiling actions, vectors, linearize; the C-like renderer."""
