"""``python -m deltalens``, as ``torchrun -m deltalens`` starts it."""

import sys

from deltalens.cli.main import main

sys.exit(main())
