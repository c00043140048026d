"""``python -m mulle``: the same as the ``mulle`` command."""

from mulle.surfaces.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
