"""The benchmark harness, installed as ``sparsejax_bench``; ``sparsejax bench`` is its front.

Importing this package imports nothing else: threads are pinned before JAX, NumPy or PyTorch start.
"""
