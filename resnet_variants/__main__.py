"""``python -m resnet_variants VERB``: the same as the console script."""

import sys

from resnet_variants.terminal.cli import main

if __name__ == "__main__":
    sys.exit(main())
