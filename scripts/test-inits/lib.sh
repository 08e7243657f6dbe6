# What the parts of scripts/test-inits.sh share: each sources this with its arguments HXE DIR [quick], the binary and a
# directory of its own, then says how an init is started and spoken to, and calls `life`; quick is what the test command
# has time for. POSIX sh; curl speaks to hxe.
# shellcheck shell=sh disable=SC2034,SC2016 # the parts use the variables, and eval does what is quoted

set -u
hxe=${1:?usage: PART.sh HXE DIR [quick]}
dir=${2:?usage: PART.sh HXE DIR [quick]}
quick=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
part=$(basename "$0" .sh)
failures=0
token=
# What `inside` enters; empty where the init runs beside us.
first=
# Processes to end at the end.
started=
# Whether init starts hxe again when it is gone.
respawns=yes

say() {
    printf '%s\n' "$*"
}

pass() {
    say "PASS $part: $1"
}

flunk() {
    say "FAIL $part: $1"
    failures=$((failures + 1))
}

# Ends the part, as it cannot be run here.
skip() {
    say "skipped $part: $1"
    exit 0
}

# Runs a command; $1 says what it shows.
check() {
    what=$1
    shift
    if "$@"; then
        pass "$what"
    else
        flunk "$what"
    fi
}

# Runs a command until it succeeds; half a minute, and more where the machine is busy.
wait_for() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || return 1
        sleep 0.1
    done
}

not() {
    ! "$@"
}

need() {
    for tool; do
        command -v "$tool" >/dev/null || skip "$tool is not there"
    done
}

need_root() {
    [ "$(id -u)" -eq 0 ] || skip "needs root"
}

# A port that nobody listens on.
free_port() {
    port=$((20000 + $$ % 10000))
    while grep -qi ":$(printf %04X "$port") 00000000:0000 0A" /proc/net/tcp; do
        port=$((port + 1))
    done
}

# hxe.toml for an hxe that runs beside us, in $dir.
configure() {
    free_port
    umask 022
    cat >"$dir/hxe.toml" <<END
[api]
listen = "127.0.0.1:$port"
password = "for this run only"
rate_limit = 1000
[storage]
state_dir = "$dir/state"
run_dir = "$dir/run"
log_dir = "$dir/log"
END
    config=$dir/hxe.toml
    password="for this run only"
    pid_file=$dir/hxe.pid
    proc=/proc
}

# A script of scripts/init, for an hxe that runs beside us.
adapt() {
    sed "s#/usr/bin/hxe daemon#$hxe daemon --config $dir/hxe.toml#; s#/usr/bin/hxe#$hxe#; s#/run/hxe#$dir/hxe#g
        s#/etc/default/hxe#$dir/default#g; s#/etc/inittab#$dir/inittab#g" "$source/scripts/init/$1" >"$2"
    chmod 755 "$2"
}

# Installs hxe in a tree that has an init, as its users do, and sets what this run needs.
install_in() {
    DESTDIR=$1 sh "$source/scripts/install.sh" --binary "$hxe" >"$dir/install.log" 2>&1 || {
        cat "$dir/install.log"
        flunk "install.sh"
        return 1
    }
    check "install.sh finds $2" grep -qx "init: $2" "$dir/install.log"
    free_port
    config=$1/etc/hxe/hxe.toml
    password=$(sed -n 's/^password = "\(.*\)"$/\1/p' "$config")
    sed -i "s/^#listen = .*/listen = \"127.0.0.1:$port\"/; s/^#rate_limit = .*/rate_limit = 1000/" "$config"
}

# Runs a command where the init is.
inside() {
    if [ -n "$first" ]; then
        nsenter -t "$first" -m -p -r -w "$@"
    else
        "$@"
    fi
}

# Makes a program process 1 of a pid namespace with a tree as its root: boot TREE COMMAND...
boot() {
    tree=$1
    shift
    # shellcheck disable=SC2016 # the inner shell's
    setsid unshare -p -f -m -u -i --kill-child sh -c '
        tree=$1
        shift
        mount --make-rprivate / && mount --bind "$tree" "$tree" && mount -t proc proc "$tree/proc" &&
            mount -t tmpfs -o mode=755 run "$tree/run" && exec chroot "$tree" "$@"' sh "$tree" "$@" \
        >"$dir/console.log" 2>&1 </dev/null &
    started=$!
    wait_for has_child "$started" || return 1
    proc=/proc/$first/root/proc
    pid_file=/proc/$first/root/run/hxe.pid
}

# Finds the child of a process that has become an init: its root is not ours.
has_child() {
    for status in /proc/[0-9]*/status; do
        if grep -q "^PPid:[[:space:]]*$1\$" "$status" 2>/dev/null; then
            first=${status#/proc/}
            first=${first%/status}
            [ "$(readlink "/proc/$first/root")" = "$tree" ] && return 0
        fi
    done
    return 1
}

finish() {
    code=$?
    for pid in $started; do
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    # What an hxe beside us has left, should a check have failed.
    if [ -z "$first" ] && [ -n "${pid_file:-}" ] && pid=$(hxe_pid) && [ -d "/proc/$pid" ]; then
        kill -TERM "$pid" 2>/dev/null
        wait_for not test -d "/proc/$pid"
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# Asks hxe: METHOD PATH [BODY]; fails unless the answer is a 2xx.
api() {
    if [ -z "$token" ]; then
        token=$(curl -sf --noproxy '*' -m 30 "http://127.0.0.1:$port/api/auth/login" \
            -d "{\"username\":\"admin\",\"password\":\"$password\"}" | sed -n 's/.*"token":"\([^"]*\)".*/\1/p')
        [ -n "$token" ] || return 1
    fi
    curl -sf --noproxy '*' -m 60 -X "$1" -H "Authorization: Bearer $token" ${3:+-d "$3"} "http://127.0.0.1:$port$2"
}

answers() {
    api GET /api/program >/dev/null 2>&1
}

# The pid of a program.
program_pid() {
    api GET "/api/program/$1" | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'
}

hxe_pid() {
    cat "$pid_file" 2>/dev/null
}

is_there() {
    [ -n "$1" ] && [ -d "$proc/$1" ]
}

# Whether another process than this has come up, and answers.
is_replaced() {
    new=$(hxe_pid) && [ "$new" != "$1" ] && is_there "$new" && answers
}

daemon_pid() {
    for status in "$proc"/[0-9]*/status; do
        if grep -q "^PPid:[[:space:]]*$1\$" "$status" 2>/dev/null; then
            status=${status%/status}
            say "${status##*/}"
            return
        fi
    done
    return 1
}

has_another_daemon() {
    new=$(daemon_pid "$1") && [ "$new" != "$2" ] && answers
}

has_limit() {
    curl -s --noproxy '*' -m 30 -D - -o /dev/null "http://127.0.0.1:$port/api/program" | grep -qi "^x-ratelimit-limit: $1"
}

# Whether program "clock" runs as the process that it was.
is_kept() {
    [ -n "$clock" ] && [ "$(program_pid clock)" = "$clock" ] && is_there "$clock"
}

runs_clock() {
    [ -n "$(program_pid clock)" ]
}

# The life of a service. The part has started init, and says by `svc ACTION` how start, stop, restart, reload, upgrade and
# status are written there.
life() {
    check "starts at boot" wait_for answers
    if [ "$failures" -gt 0 ]; then
        [ ! -s "$dir/console.log" ] || tail -n 40 "$dir/console.log"
        return
    fi
    api POST /api/program '{"name":"clock","command":"/bin/sleep","args":"100000","enabled":true}' >/dev/null
    api POST /api/program/clock/start >/dev/null
    clock=$(program_pid clock)
    check "status while it runs" svc status

    old=$(hxe_pid)
    check "restart" svc restart
    check "restart brings another hxe" wait_for is_replaced "$old"
    check "restart keeps programs" wait_for is_kept

    if [ -z "$quick" ]; then
        more_life
    fi

    check "stop" svc stop
    check "stop ends programs" wait_for not is_there "$clock"
    check "stop ends hxe" wait_for not answers
    check "status when stopped" not svc status
    [ -z "$quick" ] || return
    # Longer than any init waits before it starts something again.
    sleep 2
    check "stays stopped" not answers

    check "start" svc start
    check "start brings it back" wait_for answers
    check "enabled programs start with it" wait_for runs_clock
    clock=$(program_pid clock)
}

# What else happens to a service that runs.
more_life() {
    sed -i 's/^rate_limit = .*/rate_limit = 2000/' "$config"
    check "reload" svc reload
    check "reload reads the configuration" wait_for has_limit 2000

    old=$(hxe_pid)
    old_daemon=$(daemon_pid "$old")
    check "upgrade" svc upgrade
    check "upgrade brings another daemon" wait_for has_another_daemon "$old" "$old_daemon"
    check "upgrade keeps process and programs" wait_for eval '[ "$(hxe_pid)" = "$old" ] && is_kept'

    old_daemon=$(daemon_pid "$old")
    inside sh -c "kill -KILL $old_daemon"
    check "daemon respawns after SIGKILL" wait_for has_another_daemon "$old" "$old_daemon"
    check "that keeps programs" wait_for is_kept

    inside sh -c "kill -KILL $old"
    if [ "$respawns" = no ]; then
        wait_for not answers
        check "status after SIGKILL" not svc status
        check "start after SIGKILL" svc start
    fi
    check "hxe is back after SIGKILL of all of it" wait_for is_replaced "$old"
    check "that keeps programs, too" wait_for is_kept
}

# What the part exits with.
verdict() {
    [ "$failures" -eq 0 ]
}
