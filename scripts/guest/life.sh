#!/bin/sh
# What is shown in a guest of scripts/guest-test.sh, by busybox alone: one line a check, PASS or FAIL. init calls this beside
# the services, and as "life.sh ended" when it has stopped them.
exec >/dev/console 2>&1
cd /tmp || exit

# Runs a command until it succeeds; $1 says what it shows. A busy machine may take minutes.
check() {
    what=$1
    shift
    end=$(($(uptime_s) + 240))
    until "$@"; do
        if [ "$(uptime_s)" -ge "$end" ]; then
            echo "FAIL $what"
            return
        fi
        usleep 100000
    done
    echo "PASS $what"
}

# The same for what is so, or never will be.
check_once() {
    what=$1
    shift
    if "$@"; then
        echo "PASS $what"
    else
        echo "FAIL $what"
    fi
}

uptime_s() {
    cut -d . -f 1 /proc/uptime
}

# Asks hxe: PATH [BODY].
api() {
    wget -q -O - --header "Authorization: Bearer $(cat token)" ${2:+--post-data "$2"} "http://127.0.0.1:8080/api/$1" 2>/dev/null
}

# Logs in.
answers() {
    password=$(sed -n 's/^password = "\(.*\)"$/\1/p' /etc/hxe/hxe.toml)
    wget -q -O - --post-data "{\"username\":\"admin\",\"password\":\"$password\"}" http://127.0.0.1:8080/api/auth/login 2>/dev/null |
        sed -n 's/.*"token":"\([^"]*\)".*/\1/p' >token
    [ -s token ]
}

# Makes a program and starts it: NAME COMMAND [ARGUMENTS [MORE]].
create() {
    api program "{\"name\":\"$1\",\"command\":\"$2\",\"args\":\"${3:-}\"${4:-}}" >/dev/null
    api "program/$1/start" "{}" >/dev/null
}

# The pid of a program.
pid_of() {
    api "program/$1" | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'
}

run_in_number() {
    [ "$(api program | grep -o '"status":"running"' | wc -l)" -eq "$1" ]
}

has_cgroup() {
    ! grep -q '^0::/$' "/proc/$(pid_of "$1")/cgroup"
}

follows() {
    [ "$(grep -o '"message":"tick [0-9]*"' followed | wc -l)" -ge 10 ]
}

guardian() {
    cat /run/hxe.pid 2>/dev/null
}

# Beside the daemon, the guardian has the programs that an earlier daemon started.
daemon() {
    for pid in $(pidof hxe); do
        ! grep -qs "^PPid:[[:space:]]*$(guardian)\$" "/proc/$pid/status" || echo "$pid"
    done
}

has_another_process() {
    new=$(pid_of "$1")
    [ -n "$new" ] && [ "$new" != "$2" ] && [ -d "/proc/$new" ]
}

has_another_daemon() {
    new=$(daemon)
    [ -n "$new" ] && [ "$new" != "$1" ] && answers
}

has_another_guardian() {
    new=$(guardian)
    [ -n "$new" ] && [ "$new" != "$1" ] && [ -d "/proc/$new" ] && answers
}

pids() {
    api program | grep -o '"pid":[0-9]*'
}

# Whether all programs run as the processes that they were, and their logs go on.
are_kept() {
    pids >now
    cmp -s before now && [ "$(wc -c <"$clock_log")" -gt "$written" ]
}

remember() {
    pids >before
    clock_log=$(log_of clock)/stdout.log
    written=$(wc -c <"$clock_log")
}

log_of() {
    echo "/var/log/hxe/$(api "program/$1" | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')"
}

# Memory of guardian and daemon in KiB: resident, and with what is shared divided. VmRSS of proc(5) is some hundred KiB wrong.
memory() {
    for pid in $(guardian) $(daemon); do
        cat "/proc/$pid/smaps_rollup"
    done | awk '/^Rss:/ { rss += $2; n++ } /^Pss:/ { pss += $2 } END { print "memory: Rss", rss, "KiB, Pss", pss, "KiB,", n, "processes" }'
}

is_small() {
    memory >size
    [ "$(cut -d ' ' -f 3 size)" -lt 2560 ]
}

hxe_says() {
    text=$1
    shift
    hxe "$@" | grep -q "$text"
}

# The pid of a program, as the command tells it.
listed_pid_of() {
    hxe list --format tsv | awk -F '\t' -v name="$1" '$2 == name { print $4 }'
}

is_listed_anew() {
    new=$(listed_pid_of "$1")
    [ -n "$new" ] && [ "$new" != "$2" ] && kill -0 "$new"
}

is_gone() {
    ! pidof hxe >/dev/null
}

api_says() {
    api "$1" | grep -q "$2"
}

# Whether what is kept of the flood has every line, from wherever it begins to the last, and no word of a loss.
is_whole() {
    # shellcheck disable=SC2002,SC2046 # several files; names without blanks
    cat $(ls -r "$(log_of flood)"/stdout.log*) |
        awk -v last="$1" '
            NR > 1 && $1 != before + 1 { print "a gap after", before ": " $0; bad = 1 }
            { before = $1 }
            END { print "kept: " NR, "lines, the last", before; exit bad || before != last || NR < 5000 }' &&
        ! api "program/flood/logs?lines=10000" | grep -q lost
}

if [ "${1:-}" = ended ]; then
    check_once "programs were told to end" test -e was-told
    check "nothing of hxe runs after its stop" is_gone
    echo DONE
    exit
fi

grep -E "MemTotal|MemAvailable" /proc/meminfo
check "hxe starts at boot" answers
create clock /programs/clock "" ',"enabled":true,"auto_restart":true'
for number in 2 3 4 5 6 7 8 9 10; do
    create "sleeper-$number" /bin/sleep 100000 ',"enabled":true,"auto_restart":true'
done
check "ten programs run" run_in_number 10
[ ! -e /sys/fs/cgroup/cgroup.procs ] || check "a program is born in its cgroup" has_cgroup sleeper-2

api "program/clock/logs?follow=true" >followed &
check "a log is followed as it is written" follows
kill $!

old=$(pid_of sleeper-2)
kill -KILL "$old"
check "a program is back after SIGKILL" has_another_process sleeper-2 "$old"

remember
old=$(daemon)
kill -KILL "$old"
check "the daemon is back after SIGKILL" has_another_daemon "$old"
check "all programs run on, and are logged" are_kept

remember
old=$(guardian)
kill -KILL "$old"
if [ -x /etc/init.d/S50hxe ]; then
    /etc/init.d/S50hxe status
    /etc/init.d/S50hxe start
fi
check "hxe is back after SIGKILL of its guardian" has_another_guardian "$old"
check "all programs run on, and are logged" are_kept
check "hxe takes less than 2.5 MiB" is_small
cat size

create flood /programs/flood 680000
check "64 MiB of log are written to 4 MiB" api_says program/flood '"state":"exited"'
check_once "what is kept has no gap" is_whole 680000
df -k /var/log
check "hxe takes less than 2.5 MiB" is_small
cat size

# Debian's busybox for armhf cannot tell a file of after January 2038, and has no part in this but for starting hxe.
set_clock 2190000000
check "logs go on in 2039" hxe_says '^2039-.*tick' logs --format tsv -n 1 clock
old=$(listed_pid_of sleeper-3)
kill -KILL "$old"
check "a program is back after SIGKILL in 2039" is_listed_anew sleeper-3 "$old"
set_clock 1000000000
check "logs go on in 2001" hxe_says '^2001-.*tick' logs --format tsv -n 1 clock
poweroff
