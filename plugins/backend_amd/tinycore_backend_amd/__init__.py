"""GCN code for AMD GPUs (compile only for now)."""
