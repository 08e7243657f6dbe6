#!/bin/sh
# Has WebSocket clients that others wrote talk to hxe: `scripts/clients/run.sh HXE`, the binary. Needs Python with venv,
# Node with npm, and their package registries; leaves nothing behind. Exits with 0 if all of them found what they should.
set -eu

hxe=${1:?usage: run.sh HXE}
here=$(cd "$(dirname "$0")" && pwd)
password="for this run only"
dir=$(mktemp -d)
# The directories below it must be the daemon's own, and closed to others.
chmod 755 "$dir"
pid=

finish() {
    status=$?
    if [ -n "$pid" ]; then
        kill "$pid" || true
        wait "$pid" || status=1
    fi
    if [ "$status" -ne 0 ] && [ -f "$dir/hxe.log" ]; then
        cat "$dir/hxe.log" >&2
    fi
    rm -rf "$dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

python3 -m venv "$dir/python"
"$dir/python/bin/pip" install --quiet --disable-pip-version-check websockets
mkdir "$dir/node"
cp "$here/conversation.mjs" "$dir/node/"
npm install --silent --no-audit --no-fund --prefix "$dir/node" ws

cat >"$dir/hxe.toml" <<END
[api]
listen = "127.0.0.1:0"
password = "$password"
[storage]
state_dir = "$dir/state"
run_dir = "$dir/run"
log_dir = "$dir/log"
END
chmod 600 "$dir/hxe.toml"
"$hxe" daemon --config "$dir/hxe.toml" >"$dir/hxe.log" 2>&1 &
pid=$!
url=
while [ -z "$url" ]; do
    kill -0 "$pid" || exit 1
    url=$(sed -n 's/^hxe: listening on //p' "$dir/hxe.log")
    [ -n "$url" ] || sleep 0.1
done

"$dir/python/bin/python" "$here/conversation.py" "$url" "$password"
node "$dir/node/conversation.mjs" "$url" "$password"
