"""Negatives: rules that make a worse soundtrack (or video) out of a good one, for SyncDPO (arXiv 2605.12179).

Contract: the same generator gives the same bytes, shape is kept, severity 0 is the identity and the result
is farther from the original as severity grows to 1.
"""
