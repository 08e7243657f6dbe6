#!/bin/sh
# runit as process 1 of a Debian tree.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/test-inits/tree.sh
. "$(dirname "$0")/tree.sh"
make_tree runit runit-init systemd-sysv-
take_tree runit

svc() {
    case $1 in
        reload) set -- hup ;;
        upgrade) set -- 2 ;;
    esac
    inside sv -w 60 "$1" hxe >"$dir/sv.log" 2>&1 && { [ "$1" != status ] || grep -q '^run:' "$dir/sv.log"; }
}

install_in "$dir/root" runit || exit 1
boot "$dir/root" /sbin/init || flunk "boot: $(cat "$dir/console.log")"
life
verdict
