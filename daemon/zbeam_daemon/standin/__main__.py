"""``python -m zbeam_daemon.standin``: the stand-in without the rest of the daemon's commands."""

from zbeam_daemon.standin.command import standin

if __name__ == "__main__":
    standin(prog_name="zbeamd standin")
