"""Calls to addresses that strangers gave: checked addresses, deadlines and size limits."""
