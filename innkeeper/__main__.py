"""``python -m innkeeper``."""

from innkeeper.cli import main

if __name__ == "__main__":
    main()
