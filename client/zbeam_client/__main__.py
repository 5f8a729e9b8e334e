"""``python -m zbeam_client`` is ``zbeam-client``."""

import sys

from zbeam_client.cli.main import main

sys.exit(main())
