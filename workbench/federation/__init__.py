"""Federated rounds: one ClientApp and one driver, on every engine and testbed."""
