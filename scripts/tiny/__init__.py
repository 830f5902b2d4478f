"""Training of the built-in checkpoint: its world, captions and training stages.

Nothing here is part of the installed package; the package only ships what this folder produces.
"""
