#!/bin/sh
# OpenRC, started by sysvinit as process 1 of a Debian tree.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/test-inits/tree.sh
. "$(dirname "$0")/tree.sh"
make_tree openrc openrc sysvinit-core systemd-sysv-
take_tree openrc
respawns=no

svc() {
    inside rc-service hxe "$1" >"$dir/svc.log" 2>&1
}

install_in "$dir/root" openrc || exit 1
boot "$dir/root" /sbin/init || flunk "boot: $(cat "$dir/console.log")"
life
verdict
