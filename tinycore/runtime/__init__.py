"""Devices, buffers, programs, caches."""
