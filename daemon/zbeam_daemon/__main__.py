"""``python -m zbeam_daemon`` is ``zbeamd``."""

from zbeam_daemon.main import main

main()
