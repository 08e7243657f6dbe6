# Packages of Debian, unpacked below a directory: nothing is installed, so that any user can have them, the machine stays as it
# is, and what is for another machine is no different. For cross.sh and guest-test.sh.
# shellcheck shell=sh

# Below it is all that was fetched, for the next run.
cache=$(realpath -m "${CARGO_TARGET_DIR:-target}")/cross
# Where packages for this machine are unpacked.
tools=$cache/tools
own=$(dpkg --print-architecture 2>/dev/null || true)

say() {
    printf '%s\n' "$*" >&2
}

# What cannot be had here.
cannot() {
    say "${0##*/}: $*"
    exit 3
}

# Writes settings of apt for packages of an architecture, prints the name of that file. Each architecture has lists of its own:
# one list that cannot be fetched makes apt leave out its whole source, also for the other architectures.
apt_settings() {
    dir=$cache/apt/$1
    mkdir -p "$dir/lists/partial" "$dir/archives/partial"
    # What these packages need is found beside them, or not at all: none of them counts as installed.
    awk 'BEGIN { RS = ""; FS = "\n"; ORS = "\n\n" } $1 !~ /^Package: ((binutils|cpp|gcc)-.*(aarch64|arm)-linux|cargo-web|gcc-.*cross|lib.*-cross|libstd-rust-web|qemu-(system|user)|rust)/' \
        /var/lib/dpkg/status >"$dir/status"
    cat >"$dir/settings" <<END
APT::Architecture "$1";
APT::Architectures { "$1"; };
APT::Sandbox::User "root";
Acquire::http::Timeout "30";
Acquire::Languages "none";
Acquire::Retries "2";
Debug::NoLocking "true";
Dir::Cache "$dir/";
Dir::Cache::archives "$dir/archives/";
Dir::State::Lists "$dir/lists/";
Dir::State::status "$dir/status";
END
    printf '%s\n' "$dir/settings"
}

# Runs apt for an architecture.
apt_for() {
    APT_CONFIG=$cache/apt/$1/settings
    shift
    APT_CONFIG=$APT_CONFIG "$@"
}

# Fetches the list of packages of an architecture, once a day.
lists() {
    for tool in apt-get dpkg dpkg-deb; do
        command -v "$tool" >/dev/null || cannot "this needs packages of Debian, and there is no $tool here"
    done
    settings=$(apt_settings "$1")
    [ -z "$(find "${settings%/*}/listed" -mtime -1 2>/dev/null)" ] || return 0
    say "fetching the lists of packages for $1"
    # One source that cannot be reached fails it, but need not be the one with what is wanted.
    apt_for "$1" apt-get -q update >"${settings%/*}/log" 2>&1 || true
    if ls "${settings%/*}"/lists/*Packages* >/dev/null 2>&1; then
        touch "${settings%/*}/listed"
    fi
}

# Unpacks packages for this machine, with what they need and the machine lacks, into $tools.
need() {
    mark=$cache/marks/$(printf '%s-' "$@" | tr / _)
    [ ! -e "$mark" ] || return 0
    lists "$own"
    archives=$cache/apt/$own/archives
    rm -f "$archives"/*.deb
    say "fetching $*"
    apt_for "$own" apt-get -qy --no-install-recommends --download-only install "$@" >"$cache/apt/$own/log" 2>&1 ||
        cannot "apt-get cannot have $*: $(tail -n 1 "$cache/apt/$own/log")"
    mkdir -p "$tools" "$cache/marks"
    for package in "$archives"/*.deb; do
        # There are none where the machine has all of them.
        [ ! -e "$package" ] || dpkg-deb -x "$package" "$tools" || cannot "$package cannot be unpacked"
    done
    # Some 300 MB.
    rm -f "$archives"/*.deb
    touch "$mark"
}

# Unpacks a package of any architecture, alone, into a directory.
unpack() {
    [ ! -e "$3.done" ] || return 0
    lists "$1"
    say "fetching $2 for $1"
    rm -rf "$3"
    mkdir -p "$3"
    (
        cd "$3"
        apt_for "$1" apt-get -q download "$2" >"$cache/apt/$1/log" 2>&1 ||
            cannot "apt-get cannot have $2 for $1: $(tail -n 1 "$cache/apt/$1/log")"
        dpkg-deb -x ./*.deb . || cannot "$2 for $1 cannot be unpacked"
        rm -f ./*.deb
    ) || exit
    touch "$3.done"
}

# Runs one of $tools with the libraries there.
with_tools() {
    libraries=$tools/usr/lib/$(uname -m)-linux-gnu:$tools/lib/$(uname -m)-linux-gnu
    PATH="$tools/usr/bin:$tools/bin:$PATH" LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$@"
}
