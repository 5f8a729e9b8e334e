#!/usr/bin/env bash
# The main job, shown: `make demo` runs this. Everything happens in a folder of its own, against
# the bundled stand-in for the DeepSeek API, over TLS on loopback; no key and no network needed.
set -euo pipefail

bin=$(cd "${1:-.venv/bin}" && pwd)
site=$(cd "$(dirname "$0")/../examples/sample-site" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/zbeam-demo.XXXXXX")
pids=()

finish() {
    status=$?
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
    [ "$status" = 0 ] || echo "the demo failed (exit $status)" >&2
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { # show a command, then run it
    printf '\033[36m$ %s\033[0m\n' "$*"
    "$@"
}
fail() { echo "demo: $*" >&2; exit 1; }
wait_until() { # wait_until SECONDS COMMAND...: until the command succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "waited too long for: $*"
        sleep 0.05
    done
}

cd "$work"
export PATH="$bin:$PATH" HOME="$work" XDG_RUNTIME_DIR="$work" NO_COLOR=1
export DEEPSEEK_API_KEY=sk-demo-not-a-real-key
export ZBEAM_CONFIG="$work/zbeam.toml" ZBEAM_ENDPOINT="ipc://$work/zbeam/zbeamd.sock"

say "1. A stand-in for the DeepSeek API, over TLS"
# Slow enough to be seen; the site's long answers, for step 8, ten times as fast.
{
    printf '[defaults]\ntoken_delay_s = 0.02\n'
    sed 's/^\[\[rule\]\]$/&\ntoken_delay_s = 0.002/' "$site/standin.toml"
} >demo.toml
printf '\033[36m$ zbeamd standin --port 0 --tls --ca-out ca.pem --scenario demo.toml &\033[0m\n'
zbeamd standin --port 0 --tls --ca-out ca.pem --scenario demo.toml --log standin.log >standin.out &
pids+=($!)
wait_until 20 grep -q listening standin.out
cat standin.out
url=$(grep -o 'https://[0-9.:]*' standin.out)

say "2. A configuration, pointed at it, and checked"
run zbeamd init
sed -i -e "s|^base_url = .*|base_url = \"$url\"|" -e "s|^# ca_file = .*|ca_file = \"$work/ca.pem\"|" \
    -e 's|^# balance_interval_s = .*|balance_interval_s = 0|' \
    -e 's|^# log_level = .*|log_level = "debug"|' -e 's|^# warm = .*|warm = 0|' zbeam.toml
run grep -E '^(base_url|ca_file|log_level|warm|model|max_tokens) =' zbeam.toml
run zbeamd check

say "3. The daemon"
printf '\033[36m$ zbeamd run &\033[0m\n'
zbeamd run 2>zbeamd.log &
daemon=$!
pids+=("$daemon")
wait_until 20 zbeam-client ping
run zbeam-client cache warm 1
cat zbeamd.log

say "4. An answer, streamed through a session that was already warm"
run zbeam-client -v generate --stream "Write three sentences about laser cleaning of aluminum."

say "5. A second one: the same session, no new handshake"
printf '\033[36m$ zbeam-client --json generate "And two about copper." >second.json\033[0m\n'
zbeam-client --json generate "And two about copper." >second.json
run grep -oE '"(session|timings_ms)": \{[^}]*\}' second.json
grep -q '"reused": true' second.json || fail "the second answer did not reuse the session"
handshakes=$(grep -c '"event": *"tls_handshake"' standin.log)
echo "TLS handshakes that the stand-in has seen: $handshakes"
[ "$handshakes" = 1 ] || fail "expected one handshake for both answers"

say "6. The cache of sessions"
run zbeam-client cache stats
run zbeam-client cache info
run zbeam-client cache flush
run zbeam-client cache stats --json

say "7. A configuration change, picked up while running"
run sed -i 's|^max_tokens = .*|max_tokens = 12|' zbeam.toml
changed() { zbeam-client config show | grep -q "generation.max_tokens = $1 "; }
wait_until 5 changed 12
run grep config.reloaded zbeamd.log
run zbeam-client generate --stream "Write three sentences about laser cleaning of brass."
run sed -i 's|^max_tokens = .*|max_tokens = "many"|' zbeam.toml
wait_until 5 grep -q config.rejected zbeamd.log
echo "A bad value leaves the running configuration alone, and shows:"
run zbeam-client status

run sed -i 's|^max_tokens = .*|max_tokens = 4096|' zbeam.toml
wait_until 5 changed 4096

say "8. A site's content: three files for each metal, eight at a time"
cp -r "$site" site
requests() { grep -c '"event": *"request"' standin.log || true; }
content=(generate --data site --category metal --components frontmatter,caption,tags --jobs 8)
run zbeam-client "${content[@]}"
run head -n 4 content/components/frontmatter/copper-laser-cleaning.md
before=$(requests)
run zbeam-client "${content[@]}" --resume
[ "$(requests)" = "$before" ] || fail "--resume asked for what was there already"
echo "Requests that the second run has sent: $(($(requests) - before))"
run zbeam-client validate content/components --data site

say "9. A clean stop"
printf '\033[36m$ kill -TERM %s\033[0m\n' "$daemon"
kill -TERM "$daemon"
wait "$daemon" || fail "zbeamd ended with $?"
run tail -n 3 zbeamd.log
say "Done. With DEEPSEEK_API_KEY set, and .venv/bin on your PATH: zbeamd init, then zbeam-client generate \"Hello\"."
