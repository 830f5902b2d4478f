"""``python -m hunyuan_local``: the command line, if the script is not on PATH."""

from .cli.main import main

if __name__ == "__main__":  # not in processes started by multiprocessing
    main()
