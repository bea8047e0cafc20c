"""PTX for NVIDIA GPUs (compile only for now)."""
