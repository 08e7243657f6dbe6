#!/bin/sh
# Has tools of others hold hxe to its description, /api/openapi.json: a validator reads it, schemathesis makes up requests
# from it and looks at each answer, and a client that is generated from it runs a program.
#
# Usage: scripts/test-openapi.sh [HXE]     HXE: the binary, target/debug/hxe if it is not said
# Takes Python packages into target/test-openapi; says so and ends with 0 where they cannot be had. The daemon listens on
# 127.0.0.1, in a directory of its own, as nobody where this is run by root, and ends with the script. Of the programs that
# schemathesis makes up it runs none: scripts/test-openapi/hooks.py puts sleep, /bin/true and their like in their place.
# Requests are the same each time; EXAMPLES (30) and SEED (1) in the environment change how many there are, and which.
set -eu
cd "$(dirname "$0")/.."
HXE=${1:-target/debug/hxe}
[ -x "$HXE" ] || { echo "there is no $HXE: cargo build makes it" >&2; exit 1; }
PACKAGES="openapi-spec-validator==0.9.0 schemathesis==4.32.5 openapi-python-client==0.29.1"

skip() {
    echo "skipped: $*"
    exit 0
}

venv=$PWD/target/test-openapi
python3 -m venv "$venv" >/dev/null 2>&1 || skip "python3 with venv is needed"
# shellcheck disable=SC2086 # one word each
"$venv/bin/pip" install -q --disable-pip-version-check $PACKAGES ||
    skip "these Python packages cannot be had: $PACKAGES"

password="for this run only"
dir=$(mktemp -d)
# Those above the daemon's own must let it pass.
chmod 755 "$dir"
pid=
cleanup() {
    status=$?
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    [ "$status" = 0 ] || ! [ -f "$dir/hxe.out" ] || tail -n 20 "$dir/hxe.out" >&2
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

cp "$HXE" "$dir/hxe"
mkdir "$dir/home"
cat >"$dir/home/hxe.toml" <<END
[api]
listen = "127.0.0.1:0"
password = "$password"
rate_limit = 0
[storage]
state_dir = "$dir/home/state"
run_dir = "$dir/home/run"
log_dir = "$dir/home/log"
[programs]
include = ""
stop_timeout = "100ms"
END
printf '#!/bin/sh\nexec sleep 10\n' >"$dir/stays"
chmod 755 "$dir/stays"
chmod 600 "$dir/home/hxe.toml"
as_whom=
if [ "$(id -u)" = 0 ]; then
    command -v setpriv >/dev/null || skip "root needs setpriv to run the daemon as nobody"
    chown -R nobody "$dir/home"
    as_whom="setpriv --reuid=nobody --regid=$(id -g nobody) --clear-groups"
fi
: >"$dir/hxe.out"
# shellcheck disable=SC2086 # several words, or none
(cd "$dir/home" && exec $as_whom "$dir/hxe" daemon --config "$dir/home/hxe.toml") >"$dir/hxe.out" 2>&1 &
pid=$!
url=
while [ -z "$url" ]; do
    kill -0 "$pid" || exit 1
    url=$(sed -n 's/^hxe: listening on //p' "$dir/hxe.out")
    [ -n "$url" ] || sleep 0.1
done

echo "openapi-spec-validator"
"$venv/bin/openapi-spec-validator" src/api/openapi.json

echo "openapi-python-client"
printf 'post_hooks: []\n' >"$dir/client.yml"
"$venv/bin/openapi-python-client" generate --url "$url/api/openapi.json" --meta none --output-path "$dir/hxe_api" \
    --config "$dir/client.yml" --fail-on-warning
PYTHONPATH="$dir" "$venv/bin/python" -B scripts/test-openapi/client.py "$url" "$password"

echo "schemathesis"
# Left out: that each request which the description allows is granted. There are users that no machine has, and stops of
# what does not run, and they are 400.
hooks=$PWD/scripts/test-openapi
(
    cd "$dir"
    export HXE_URL="$url" HXE_PASSWORD="$password" HXE_STAYS="$dir/stays"
    export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$hooks" SCHEMATHESIS_HOOKS=hooks
    "$venv/bin/st" run "$url/api/openapi.json" --no-color \
        --seed "${SEED:-1}" --max-examples "${EXAMPLES:-30}" --exclude-checks positive_data_acceptance \
        --request-timeout 30 --suppress-health-check all
) >"$dir/st.out" 2>&1 || { cat "$dir/st.out"; exit 1; }
sed -n '/^answers that were/,$p; /generated,/p' "$dir/st.out"
kill -0 "$pid"
echo "all is well"
