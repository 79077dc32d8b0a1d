"""The command line as `python -m chexgen_lib.cli`."""

import sys

from chexgen_lib.cli.main import main

sys.exit(main())
