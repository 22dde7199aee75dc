"""Pruning: what of a network can go, what that saves, and networks as bytes.

`netadapt` is the method; `blocks` finds what can be pruned together, `cost` and `latency` price
it, `candidates` and `slicing` carry it out, `multipliers` is the baseline. `codec` turns networks
into bytes and back, `export` into files for deployment.
"""
