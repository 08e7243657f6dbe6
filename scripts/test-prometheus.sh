#!/bin/sh
# Has Prometheus itself look at what hxe serves and at conf/prometheus: promtool reads the metrics and the alerts, and a
# real server scrapes a daemon with the token that opens nothing else.
#
# Usage: scripts/test-prometheus.sh [HXE]     HXE: the binary, target/debug/hxe if it is not said
# Takes Debian's package prometheus where it may install it (root and apt-get); says so and ends with 0 where it may not.
# Both listen on 127.0.0.1 only, and end with the script.
set -eu
cd "$(dirname "$0")/.."
HXE=${1:-target/debug/hxe}
[ -x "$HXE" ] || { echo "there is no $HXE: cargo build makes it" >&2; exit 1; }

skip() {
    echo "skipped: $*"
    exit 0
}

has() {
    command -v "$1" >/dev/null 2>&1
}

if ! has curl || ! has python3; then
    skip "curl and python3 are needed"
fi
if ! has promtool && [ "$(id -u)" = 0 ] && has apt-get; then
    # Without its service, which would listen on all addresses.
    apt-get -q update >&2 || true
    unpack=$(mktemp -d)
    (cd "$unpack" && apt-get -q download prometheus >&2 && dpkg-deb -x prometheus_*.deb .) || true
    PATH=$unpack/usr/bin:$PATH
fi
if ! has promtool || ! has prometheus; then
    [ -z "${unpack:-}" ] || rm -rf "$unpack"
    skip "promtool and prometheus are not here and cannot be had"
fi

dir=$(mktemp -d)
hxe_pid='' prometheus_pid=''
cleanup() {
    for pid in $prometheus_pid $hxe_pid; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir" "${unpack:-$dir}"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs a command up to 60 times, a second apart, until it succeeds.
until_done() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || { echo "in vain: $*" >&2; exit 1; }
        sleep 1
    done
}

token=$(python3 -c 'import secrets; print(secrets.token_hex(24))')
port=$(free_port)
cat >"$dir/hxe.toml" <<END
[api]
listen = "127.0.0.1:$port"
metrics_token = "$token"
[storage]
state_dir = "$dir/state"
run_dir = "$dir/run"
log_dir = "$dir/log"
[programs]
include = ""
END
chmod 600 "$dir/hxe.toml"
"$HXE" daemon --config "$dir/hxe.toml" >"$dir/hxe.out" 2>&1 &
hxe_pid=$!
hxe() {
    "$HXE" --config "$dir/hxe.toml" "$@"
}
until_done hxe status
hxe create 'a "quoted" \name' sleep 1000 >/dev/null
hxe start 'a "quoted" \name' >/dev/null

echo "promtool check metrics"
hxe metrics --export prometheus | promtool check metrics
echo "promtool check rules"
promtool check rules conf/prometheus/alerts.yml

web=$(free_port)
cat >"$dir/prometheus.yml" <<END
global:
  scrape_interval: 1s
rule_files: [$PWD/conf/prometheus/alerts.yml]
scrape_configs:
  - job_name: hxe
    authorization:
      credentials: $token
    static_configs:
      - targets: ["127.0.0.1:$port"]
END
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" \
    --web.listen-address="127.0.0.1:$web" >"$dir/prometheus.out" 2>&1 &
prometheus_pid=$!
# Whether a query finds exactly one series of this value.
finds() {
    curl -fsS --data-urlencode "query=$1" "http://127.0.0.1:$web/api/v1/query" | python3 -c '
import json, sys
found = json.load(sys.stdin)["data"]["result"]
sys.exit([one["value"][1] for one in found] != [sys.argv[1]])' "$2"
}
echo "a server scrapes hxe"
until_done finds 'up{job="hxe"}' 1
until_done finds 'hxe_program_up{program="a \"quoted\" \\name"}' 1
hxe stop 'a "quoted" \name' >/dev/null
until_done finds 'hxe_program_up{program="a \"quoted\" \\name"}' 0
hxe delete 'a "quoted" \name' >/dev/null
echo "all is well"
