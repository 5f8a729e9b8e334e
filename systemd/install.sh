#!/bin/sh
# `sudo make install` and `sudo make uninstall`: zbeam for the whole machine.
#
#   APP      the virtual environment                      [/opt/zbeam]
#   PREFIX   commands, units and man pages                [/usr/local]
#   DESTDIR  a folder to put everything below, for packages; nothing of the machine is touched then
#   PYTHON   the interpreter, outside of home folders     [the first of python3, /usr/bin/python3]
#
# Running it again brings everything up to date. What the administrator has written is kept.
set -eu

APP=${APP:-/opt/zbeam}
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
ETC=/etc/zbeam
SOURCE=$(cd "$(dirname "$0")/.." && pwd)
COMMANDS="zbeamd zbeam-client"
MANUALS=$DESTDIR$PREFIX/share/man/man1
SYSTEM=$DESTDIR$PREFIX/lib/systemd/system
USERS=$DESTDIR$PREFIX/lib/systemd/user

say() { printf '  %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

# Whether there is a machine to change, and whether its systemd runs (not so in a chroot).
on_this_machine() { [ -z "$DESTDIR" ]; }
systemd_runs() { on_this_machine && [ -d /run/systemd/system ]; }

find_python() {
    # The unit sees no home folders, so an interpreter that lives in one cannot serve.
    for candidate in ${PYTHON:-python3 /usr/bin/python3 /usr/local/bin/python3}; do
        found=$("$candidate" -c '
import os, sys, venv, ensurepip
base = os.path.realpath(sys.base_prefix) + "/"
good = sys.version_info >= (3, 11) and not base.startswith(("/home/", "/root/", "/run/user/"))
print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)) if good else "")
' 2>/dev/null) || continue
        [ -z "$found" ] || { echo "$found"; return; }
    done
    fail "no Python 3.11 or newer with venv outside of home folders (Debian: apt install python3-venv); name one with PYTHON="
}

install_environment() {
    target=$DESTDIR$APP
    python=$(find_python)
    if [ -e "$target" ] && [ ! -e "$target/pyvenv.cfg" ]; then
        fail "$target exists and is no virtual environment: choose another place with APP="
    fi
    # An environment whose interpreter has gone or is another one now is made anew.
    if ! [ "$(realpath -q "$target/bin/python")" = "$python" ]; then
        "$python" -m venv --clear "$target"
    fi
    # Built from a copy: nothing of root's is left behind in the source folder.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    (cd "$SOURCE" && cp -R setup.py pyproject.toml README.md LICENSE daemon client shared docs "$copy")
    "$target/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$copy"
    # The same version from changed sources is new all the same.
    "$target/bin/python" -m pip install --quiet --disable-pip-version-check \
        --force-reinstall --no-deps "$copy"
    "$target/bin/python" "$copy/docs/man.py" "$copy/man" >/dev/null
    if [ -n "$DESTDIR" ]; then
        # The scripts are to run where the package is unpacked.
        grep -rlIF "$target" "$target/bin" | xargs sed -i "s|$target|$APP|g"
    fi
    chmod -R go+rX,go-w "$target"
    say "$APP: virtual environment of $python"
}

install_links() {
    mkdir -p "$DESTDIR$PREFIX/bin"
    for command in $COMMANDS; do
        ln -sfn "$APP/bin/$command" "$DESTDIR$PREFIX/bin/$command"
    done
    say "$PREFIX/bin: $COMMANDS"
}

fill_in() { # FROM TO
    sed -e "s|@APP@|$APP|g" "$1" >"$2.new"
    chmod 0644 "$2.new"
    mv "$2.new" "$2"
}

install_units() {
    mkdir -p "$SYSTEM" "$USERS" "$DESTDIR$PREFIX/lib/sysusers.d" "$DESTDIR$PREFIX/lib/tmpfiles.d"
    for unit in "$SOURCE"/systemd/system/*.service "$SOURCE"/systemd/system/*.socket "$SOURCE"/systemd/system/*.timer; do
        fill_in "$unit" "$SYSTEM/${unit##*/}"
    done
    for unit in "$SOURCE"/systemd/user/*; do
        fill_in "$unit" "$USERS/${unit##*/}"
    done
    fill_in "$SOURCE/systemd/system/zbeam.sysusers" "$DESTDIR$PREFIX/lib/sysusers.d/zbeam.conf"
    fill_in "$SOURCE/systemd/system/zbeam.tmpfiles" "$DESTDIR$PREFIX/lib/tmpfiles.d/zbeam.conf"
    say "$PREFIX/lib/systemd: units for the system and for users, their user and their folder"
}

remove_manuals() {
    rm -f "$MANUALS"/zbeamd.1 "$MANUALS"/zbeamd-*.1 "$MANUALS"/zbeam-client.1 "$MANUALS"/zbeam-client-*.1
}

install_manuals() {
    mkdir -p "$MANUALS"
    remove_manuals # of commands that are gone
    install -m 0644 "$copy"/man/*.1 "$MANUALS"
    say "$PREFIX/share/man: man pages"
}

install_configuration() {
    file=$DESTDIR$ETC/zbeam.toml
    mkdir -p "$DESTDIR$ETC"
    if [ -e "$file" ]; then
        say "$ETC/zbeam.toml: kept as it is (what is new: zbeamd init --upgrade --config $ETC/zbeam.toml)"
        return
    fi
    rm -f "$file.new"
    "$DESTDIR$APP/bin/python" -m zbeam_daemon init --config "$file.new" >/dev/null
    sed -i 's|^api_key_env = .*|api_key_file = "$CREDENTIALS_DIRECTORY/deepseek.key"|' "$file.new"
    mv "$file.new" "$file"
    say "$ETC/zbeam.toml: written, with the key from a credential of the unit"
}

tell_systemd() {
    on_this_machine || return 0
    command -v systemd-sysusers >/dev/null || fail "no systemd-sysusers: make a user and group zbeam by hand"
    systemd-sysusers "$PREFIX/lib/sysusers.d/zbeam.conf"
    systemd-tmpfiles --create "$PREFIX/lib/tmpfiles.d/zbeam.conf"
    say "user and group zbeam, /run/zbeam"
    systemd_runs || return 0
    systemctl daemon-reload
    # One that runs goes on with the former version until it is told.
    if systemctl --quiet is-active zbeamd.service; then
        say "zbeamd runs with what it was started with: systemctl restart zbeamd"
    fi
}

next_steps() {
    cat <<END

Next:
  1. the key:            sh -c 'umask 077; cat >$ETC/deepseek.key'      (paste it, then Ctrl-D)
  2. the configuration:  \$EDITOR $ETC/zbeam.toml
  3. start it:           systemctl enable --now zbeamd.socket           (the first caller starts the daemon;
                         systemctl enable --now zbeamd.service starts it with the machine)
  4. let people in:      usermod --append --groups zbeam NAME           (they log in again)
  5. try it:             zbeam-client generate "Hello"
For yourself alone: zbeamd init, then systemctl --user enable --now zbeamd.socket
docs/systemd.md tells the rest. \`make uninstall\` takes all of it back, except $ETC.
END
}

uninstall() {
    if systemd_runs; then
        for unit in zbeam-flush.timer zbeamd.socket zbeamd-admin.socket zbeamd-remote.socket zbeamd.service; do
            systemctl --quiet disable --now "$unit" 2>/dev/null || true
        done
    fi
    for unit in "$SOURCE"/systemd/system/*.service "$SOURCE"/systemd/system/*.socket "$SOURCE"/systemd/system/*.timer; do
        rm -f "$SYSTEM/${unit##*/}"
    done
    for unit in "$SOURCE"/systemd/user/*; do
        rm -f "$USERS/${unit##*/}"
    done
    rm -f "$DESTDIR$PREFIX/lib/sysusers.d/zbeam.conf" "$DESTDIR$PREFIX/lib/tmpfiles.d/zbeam.conf"
    remove_manuals
    for command in $COMMANDS; do
        link=$DESTDIR$PREFIX/bin/$command
        if [ "$(readlink "$link")" = "$APP/bin/$command" ]; then rm -f "$link"; fi
    done
    if [ -e "$DESTDIR$APP/pyvenv.cfg" ]; then rm -rf "$DESTDIR$APP"; fi
    if on_this_machine; then rm -rf /run/zbeam; fi
    if systemd_runs; then systemctl daemon-reload; fi
    say "units, commands and $APP removed"
    [ ! -e "$DESTDIR$ETC" ] || say "kept: $ETC (configuration and key) and the user and group zbeam;"
    [ ! -e "$DESTDIR$ETC" ] || say "to be rid of them too: rm -r $ETC; userdel zbeam"
}

if on_this_machine && [ "$(id -u)" != 0 ]; then
    fail "root is needed: sudo make $1 (or DESTDIR= for a package)"
fi
case ${1:-} in
install)
    echo "Installing zbeam:"
    install_environment
    install_links
    install_units
    install_manuals
    install_configuration
    tell_systemd
    on_this_machine && next_steps || true
    ;;
uninstall)
    echo "Removing zbeam:"
    uninstall
    ;;
*) fail "usage: $0 install | uninstall" ;;
esac
