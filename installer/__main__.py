"""``python installer [COMMAND] [args]``: set up what is missing, then run the command."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from installer.setup import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
