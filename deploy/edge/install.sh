#!/bin/sh
# Install, upgrade, roll back or remove the edge agent on Debian or Raspberry Pi OS (64 bit).
# Versions stand side by side under /opt/living-twin; `current` is the one that runs.
# Configuration and state are never touched by an upgrade, nor by an uninstall without --purge.
set -eu
umask 022

usage() {
    cat <<'END'
usage: install.sh [install|upgrade] [--with-can]   from a checkout, as root
       install.sh rollback                         back to the version before
       install.sh uninstall [--purge]              --purge: configuration, key and state as well

`install` and `upgrade` are the same and may be repeated: what is there already stays. The new
version is tried out before the swap; one that does not come up is rolled back.

exit codes: 0 done, 1 failed and nothing changed, 2 usage, 3 this machine does not fit,
4 the new version refuses what the running one accepts (nothing changed),
5 the service does not come up (rolled back where there was a version before)
END
}

# Only the tests set it: everything then happens below this folder.
root=${LIVING_TWIN_ROOT:-}
base=$root/opt/living-twin
etc=$root/etc/edge-agent
state=$root/var/lib/edge-agent
unit=$root/etc/systemd/system/edge-agent.service
journal=$root/etc/systemd/journald@edge-agent.conf
program=$root/usr/local/bin/edge-agent
user=edge-agent
settle_s=10

say() { printf '%s\n' "$*"; }
fail() {
    code=$1
    shift
    printf 'install.sh: %s\n' "$*" >&2
    exit "$code"
}

# ---- the machine -----------------------------------------------------------------------------

find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        case $("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.maxsize > 2**32)' 2>/dev/null) in
            '3.11 True' | '3.12 True' | '3.13 True') return ;;
            *False) fail 3 "This system is 32 bit: there numpy and msgspec come without wheels. Install the 64-bit Raspberry Pi OS or Debian (arm64, amd64)." ;;
        esac
    done
    fail 3 "Python 3.11, 3.12 or 3.13 is needed: Debian 12 and later, Raspberry Pi OS of 2023 and later have it (apt-get install python3 python3-venv)."
}

systemd_runs() { [ -d "$root/run/systemd/system" ]; }

make_user_and_folders() {
    getent passwd $user >/dev/null ||
        useradd --system --home-dir /var/lib/edge-agent --no-create-home --shell /usr/sbin/nologin $user
    install -d -m 750 -o root -g $user "$etc"
    install -d -m 700 -o $user -g $user "$etc/tls" "$state"
    for file in agent.toml environment; do
        [ -e "$etc/$file" ] || install -m 640 -o root -g $user "$checkout/deploy/edge/$file" "$etc/$file"
    done
}

as_agent() { runuser -u $user -- "$@"; }

# ---- versions --------------------------------------------------------------------------------

# A name that tells two builds apart: the version, and what it is made from.
name_version() {
    number=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$checkout/edge_agent/__init__.py")
    content=$(
        cd "$checkout"
        {
            "$python" --version
            find common edge_agent deploy/systemd deploy/edge/pyproject.toml deploy/edge/install.sh deploy/edge/slim.sh \
                requirements/edge.lock requirements/edge-can.lock requirements/build.lock \
                -type f ! -name '*.pyc' -exec sha256sum {} + | sort
        } | sha256sum | cut -c 1-8
    )
    echo "$number-$content$can"
}

build() {
    folder=$1
    case $can in
        '') lock=edge.lock ;;
        *) lock=edge-can.lock ;;
    esac
    rm -rf "$folder" # without its mark it is the rest of a run that was cut off
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    locked='--quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all:'
    say "Building $(basename "$folder") with $("$python" --version); this takes some minutes on a small board."
    for place in "$folder" "$scratch/build"; do
        "$python" -m venv "$place" >"$scratch/log" 2>&1 ||
            give_up "Python's venv module does not work ($(tail -n 1 "$scratch/log")): apt-get install python3-venv"
    done
    # shellcheck disable=SC2086 # options, to be split
    if ! { "$folder/bin/python" -m pip install --no-compile $locked -r "$checkout/requirements/$lock" &&
        "$scratch/build/bin/python" -m pip install $locked -r "$checkout/requirements/build.lock"; }; then
        give_up "The packages of requirements/$lock could not be fetched; is there a way to the package index?"
    fi
    local='--quiet --disable-pip-version-check --no-index --no-deps'
    # shellcheck disable=SC2086
    if ! { "$scratch/build/bin/python" -m pip wheel $local --no-build-isolation \
        --wheel-dir "$scratch" "$checkout/deploy/edge" &&
        "$folder/bin/python" -m pip install --no-compile $local "$scratch"/*.whl; }; then
        give_up "The agent's own wheel could not be built from $checkout."
    fi
    # A vehicle installs nothing more, and tests no libraries.
    "$folder/bin/python" -m pip uninstall --quiet --yes setuptools pip 2>/dev/null || true
    sh "$checkout/deploy/edge/slim.sh" "$folder"
    install -m 644 "$checkout/deploy/systemd/edge-agent.service" "$checkout/deploy/systemd/journald@edge-agent.conf" \
        "$checkout/LICENSE" "$folder"
    install -m 755 "$checkout/deploy/edge/install.sh" "$folder"
    "$folder/bin/edge-agent" --version >/dev/null || give_up "The new version does not even start."
    sync
    : >"$folder/.complete"
}

give_up() {
    rm -rf "$folder"
    fail 1 "$*"
}

target() { readlink "$base/$1" || true; }

# Atomically: whoever starts meanwhile runs the one or the other.
point() {
    ln -sfn "$2" "$base/.$1.new"
    mv -T "$base/.$1.new" "$base/$1"
}

# Make a version the one that runs, with the unit that belongs to it.
activate() {
    install -d "$(dirname "$unit")" "$(dirname "$program")"
    install -m 644 "$base/$1/edge-agent.service" "$unit"
    install -m 644 "$base/$1/journald@edge-agent.conf" "$journal"
    point current "$1"
    ln -sfn /opt/living-twin/current/bin/edge-agent "$program"
    sync
    if systemd_runs; then systemctl daemon-reload; fi
}

prune() {
    for found in "$base"/[0-9]*/.complete; do
        version=$(basename "$(dirname "$found")")
        case $version in
            "$(target current)" | "$(target previous)") ;;
            *) rm -rf "${base:?}/$version" ;;
        esac
    done
}

# ---- the service -----------------------------------------------------------------------------

is_up() { systemd_runs && systemctl is-active --quiet edge-agent; }

# READY=1 within the unit's time, and no restart for a while after.
comes_up() {
    systemctl restart edge-agent || return 1
    waited=0
    while [ $waited -lt $settle_s ]; do
        sleep 1
        waited=$((waited + 1))
        is_up && [ "$(systemctl show --property=NRestarts --value edge-agent)" = 0 ] || return 1
    done
}

check() { as_agent "$base/$1/bin/edge-agent" check --config "$etc/agent.toml"; }

tell_next_steps() {
    cat <<END
Installed. Before the agent can start:
  1. vehicle_id, [mqtt] host and port in /etc/edge-agent/agent.toml; the bundle folder and the
     cloud's public.pem beside it; SAMPLES= in /etc/edge-agent/environment
  2. edge-agent enroll --vehicle ID      (and what it says)
  3. edge-agent check                    (until it finds nothing more)
  4. systemctl enable --now edge-agent
END
}

# ---- commands --------------------------------------------------------------------------------

do_install() {
    checkout=$(cd "$(dirname "$0")/../.." && pwd)
    [ -f "$checkout/requirements/edge.lock" ] || fail 2 "This is no checkout: run deploy/edge/install.sh of one."
    find_python
    make_user_and_folders
    version=$(name_version)
    before=$(target current)
    if [ -e "$base/$version/.complete" ]; then
        say "$version is here already."
    else
        build "$base/$version"
    fi
    was_up=no
    if is_up; then was_up=yes; fi
    # What the running version accepts the new one has to accept as well.
    if [ -n "$before" ] && check "$before" >/dev/null 2>&1; then
        check "$version" || fail 4 "$version refuses what $before accepts: nothing was changed, $before runs on."
    fi
    if [ "$before" = "$version" ] && [ $was_up = yes ]; then
        activate "$version"
        say "$version runs."
        return
    fi
    activate "$version"
    if found=$(check "$version" 2>&1); then
        say "$found"
        start "$before"
    else
        say "$found"
        tell_next_steps
    fi
    if [ -n "$before" ] && [ "$before" != "$version" ]; then point previous "$before"; fi
    prune
}

# Start what `current` is; when it does not come up and $1 did, go back to that.
start() {
    if [ -z "$before" ]; then systemctl enable --quiet edge-agent; fi
    if ! systemctl is-enabled --quiet edge-agent; then
        say "$(target current) is in place. The service is not enabled: systemctl enable --now edge-agent"
    elif ! systemd_runs; then
        say "Installed; systemd does not run here, so it starts with the next boot."
    elif comes_up; then
        say "$(target current) runs: systemctl status edge-agent; journalctl --namespace=edge-agent -f"
    else
        back=$1
        failed=$(target current)
        why="$failed does not come up: journalctl --namespace=edge-agent -n 50"
        if [ -z "$back" ] || [ "$back" = "$failed" ] || [ "$was_up" = no ]; then fail 5 "$why"; fi
        activate "$back"
        comes_up || fail 5 "$why. Neither does $back, which is in place again."
        fail 5 "$why. $back runs again."
    fi
}

do_rollback() {
    back=$(target previous)
    now=$(target current)
    if [ -z "$back" ] || [ ! -e "$base/$back/.complete" ]; then
        fail 1 "There is no version before this one."
    fi
    point previous "$now"
    activate "$back"
    before=$now
    start ""
}

do_uninstall() {
    if systemd_runs; then
        systemctl disable --quiet --now edge-agent 2>/dev/null || true
        systemctl stop --quiet systemd-journald@edge-agent.socket systemd-journald-varlink@edge-agent.socket \
            systemd-journald@edge-agent.service 2>/dev/null || true
    else
        systemctl disable --quiet edge-agent 2>/dev/null || true
    fi
    rm -f "$unit" "$journal" "$program" "$base/current" "$base/previous"
    for found in "$base"/[0-9]*/.complete; do
        if [ -e "$found" ]; then rm -rf "$(dirname "$found")"; fi
    done
    rm -f "$base/.lock"
    rmdir "$base" 2>/dev/null || true
    if systemd_runs; then systemctl daemon-reload; fi
    if [ "$purge" = yes ]; then
        rm -rf "$etc" "$state" "$root"/var/log/journal/*.edge-agent
        if getent passwd $user >/dev/null; then userdel $user; fi
        say "Removed, with configuration, key and state."
    else
        say "Removed. Configuration and key stay in /etc/edge-agent, the state in /var/lib/edge-agent (--purge removes them)."
    fi
}

command=install
can='' purge=no
for argument; do
    case $argument in
        install | upgrade) command=install ;;
        rollback | uninstall) command=$argument ;;
        --with-can) can=-can ;;
        --purge) purge=yes ;;
        -h | --help) usage && exit 0 ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
done
if [ $purge = yes ] && [ "$command" != uninstall ]; then
    fail 2 "--purge goes with uninstall."
fi
[ "$(id -u)" = 0 ] || fail 1 "Root is needed: sudo sh $0 $*"
mkdir -p "$base"
exec 9>"$base/.lock"
flock -n 9 || fail 1 "Another install.sh is at work."
"do_$command"
