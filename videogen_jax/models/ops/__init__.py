"""Kernels: functions of arrays that exist for a platform's speed or for XLA's partitioner, with gradients of their own.

They hold no parameters. A plain formula would give the same numbers up to rounding; each docstring says what it costs.
"""
