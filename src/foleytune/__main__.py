"""`python -m foleytune VERB …`, as `foleytune VERB …`; torchrun starts its processes so."""

import sys

from foleytune.cli import main

sys.exit(main())
