"""Eager calls: tensors, plans of calls, the tape of gradients, views, and captures of functions."""
