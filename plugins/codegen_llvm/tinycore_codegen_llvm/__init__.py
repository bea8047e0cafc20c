"""LLVM IR renderer shared by the backends that compile with LLVM."""
