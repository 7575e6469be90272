"""``python -m mfp_neurons`` is ``mfp-neurons``."""

import sys

from mfp_neurons.cli import main

sys.exit(main())
