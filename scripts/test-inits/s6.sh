#!/bin/sh
# hxe under s6-svscan: the service directory as it is installed, for an hxe beside us.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
need curl s6-svscan s6-supervise s6-svc s6-svstat
configure
mkdir -p "$dir/service" "$dir/scan"
adapt s6/run "$dir/service/run"
ln -s "$dir/service" "$dir/scan/hxe"

svc() {
    case $1 in
        start) s6-svc -wu -T 60000 -u "$dir/scan/hxe" ;;
        stop) s6-svc -wD -T 60000 -d "$dir/scan/hxe" ;;
        restart) s6-svc -wr -T 60000 -q "$dir/scan/hxe" ;;
        reload) s6-svc -h "$dir/scan/hxe" ;;
        upgrade) s6-svc -2 "$dir/scan/hxe" ;;
        status) [ "$(s6-svstat -o up "$dir/scan/hxe")" = true ] ;;
    esac
}

setsid s6-svscan "$dir/scan" >"$dir/console.log" 2>&1 </dev/null &
started=$!
life
svc stop
s6-svscanctl -t "$dir/scan"
wait "$started"
started=
verdict
