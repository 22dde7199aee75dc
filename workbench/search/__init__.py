"""The search: the whole loop, its policies, and the run that it writes."""
