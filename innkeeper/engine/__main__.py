"""``python -m innkeeper.engine``: started by ``enginelink``, never by hand."""

from innkeeper.engine.child import main

if __name__ == "__main__":
    main()
