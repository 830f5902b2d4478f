"""How the built-in checkpoint is made: its world, its captions and its training stages.

Nothing here is part of the installed package; the package only ships what this folder produces.
"""
