"""OpenCL devices through any ICD loader."""
