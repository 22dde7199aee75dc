"""Benchmarks: each ``bench_*.py`` here has ``benchmarks()``, which returns rows.

A row says what was measured beside what, in the same run: ``name``, ``median`` in ``unit``,
``peer``, ``ratio`` to the peer, and the ``goal`` for that ratio.
"""
