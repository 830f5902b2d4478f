"""The device and its memory: which component is where, how much is free, how it is given back."""
