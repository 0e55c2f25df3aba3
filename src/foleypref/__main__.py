"""`python -m foleypref VERB …`, as `foleypref VERB …`; torchrun starts its processes so."""

import sys

from foleypref.cli.main import main

sys.exit(main())
