"""`python -m vlmend`: the command line."""

from vlmend.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
