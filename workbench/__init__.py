"""A workbench for network-aware federated neural architecture search."""
