"""`python -m nearfar` is the command line, so that torchrun can start it."""

import sys

from nearfar.cli.main import main

sys.exit(main())
