#!/bin/sh
# Runs hxe under each init that a development machine can have: start at boot, status, reload, restart and upgrade with
# programs kept, respawn after SIGKILL, stop, start.
#
#     scripts/test-inits.sh [--install] [PART...]     PART: a name in scripts/test-inits; all of them, unless told otherwise
#
# One line a check: PASS or FAIL, or "skipped" with the reason. Some parts need root, as they run an init as process 1 of
# namespaces of its own; --install fetches what is missing by apt-get, and makes small Debian trees by debootstrap, which
# are kept in $TREES (/var/tmp/hxe-trees). HXE is the binary to run: target/release/hxe, or else target/debug/hxe.
# Exits with 0 if nothing failed. procd cannot be had on such a machine: only the syntax of its script is checked.
set -eu
cd "$(dirname "$0")/.."

INSTALL=
if [ "${1:-}" = --install ]; then
    INSTALL=yes
    shift
    for package in curl runit s6 busybox debootstrap systemd-container; do
        # Each by itself: one that cannot be had costs only its own part.
        DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install "$package" >/dev/null 2>&1 ||
            echo "apt-get cannot install $package"
    done
fi
TREES=${TREES:-/var/tmp/hxe-trees}
mkdir -p "$TREES"
export INSTALL TREES

hxe=${HXE:-target/release/hxe}
[ -x "$hxe" ] || hxe=target/debug/hxe
if [ ! -x "$hxe" ]; then
    echo "test-inits.sh: there is no $hxe: build it, or name one by HXE" >&2
    exit 2
fi
hxe=$(realpath "$hxe")
if [ $# -eq 0 ]; then
    set -- initscript inittab start-stop-daemon busybox sysvinit openrc runit runit-init s6 systemd procd
fi

failed=
for part; do
    case $part in
        procd)
            if sh -n scripts/init/procd; then
                echo "PASS procd: syntax"
            else
                echo "FAIL procd: syntax"
                failed=yes
            fi
            echo "skipped procd: it is not in Debian, so its script has not been run"
            continue
            ;;
        *[!a-z0-9-]*) ;;
        *)
            if [ -x "scripts/test-inits/$part.sh" ]; then
                dir=$(mktemp -d /var/tmp/hxe-init.XXXXXX)
                chmod 755 "$dir"
                timeout 300 sh "scripts/test-inits/$part.sh" "$hxe" "$dir" || failed=yes
                rm -rf "$dir"
                continue
            fi
            ;;
    esac
    echo "test-inits.sh: there is no part $part" >&2
    exit 2
done
[ -z "$failed" ]
