"""Hides libraries that only extras need from Python processes that the tests start.

diffusers and transformers import these at once wherever they are installed, which takes a process longer than torch
itself, though a plain video needs none of them: without them it is as after an installation without extras. The folder
is put on PYTHONPATH by ``conftest.py``; the fixture ``with_extras`` takes it off again.
"""

import sys

for name in ("bitsandbytes", "peft", "scipy", "torchao"):
    sys.modules.setdefault(name, None)
