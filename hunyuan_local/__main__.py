"""``python -m hunyuan_local``: the command line, where its script is not on the path."""

from .cli.main import main

main()
