#!/bin/bash
# Try install.sh in a fresh Debian root file system, as root on a Debian machine:
#   deploy/edge/test-debian.sh amd64 /var/tmp/twin     boots systemd in it (systemd-nspawn)
#   deploy/edge/test-debian.sh arm64 /var/tmp/twin     on another processor: a chroot under user-mode
#                                                      emulation, everything but the service
# Needs `make setup`, debootstrap, systemd-container (to boot), qemu-user-static (to emulate), and a
# way to the package index. The folder stays, so that a second run is quicker. SUITE=trixie: that one.
set -euo pipefail

arch=${1:?arm64 or amd64}
suite=${SUITE:-bookworm}
folder=${2:?a folder for the root file system}/$suite-$arch
checkout=$(cd "$(dirname "$0")/../.." && pwd)
registry=/proc/sys/fs/binfmt_misc
registered=''
own=$(dpkg --print-architecture)

forget() { [ -z "$registered" ] || echo -1 >$registry/twin-aarch64; }
trap forget EXIT

# The kernel hands ELF files of aarch64 to the emulator, also inside the chroot (flag F).
if [ "$arch" = arm64 ] && [ "$own" != arm64 ]; then
    [ -e $registry/register ] || mount -t binfmt_misc none $registry
    if ! grep -qs 'qemu-aarch64\|aarch64-binfmt' $registry/*; then
        elf='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
        mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
        printf '%s' ":twin-aarch64:M::$elf:$mask:/usr/bin/qemu-aarch64-static:OCF" >$registry/register
        registered=yes
    fi
fi

if [ ! -e "$folder/.complete" ]; then
    rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    # shellcheck disable=SC2016 # apt's own variable
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $suite" | grep '/debian/\?$' | head -n 1) || true # debootstrap knows one
    packages=python3,python3-venv,ca-certificates,openssl,systemd,systemd-sysv
    debootstrap --arch="$arch" --variant=minbase --include=$packages "$suite" "$folder" ${mirror:+"$mirror"} >"$folder.log"
    touch "$folder/.complete"
fi

device=$(mktemp -d)
"$checkout/.venv/bin/python" - "$device" <<'END'
import sys
from pathlib import Path
sys.path.insert(0, ".")
from tests.test_edge_cli import Installation
Installation(Path(sys.argv[1]) / "device", 1883)
END

# The index is reached as this machine reaches it.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
    [ ! -e $file ] || cp -L $file "$folder$file"
done
mkdir -p "$folder/src" "$folder/device"
rm -f "$folder/root/passed"
result=$folder/root/test.log
if [ "$arch" = "$own" ]; then
    cat >"$folder/etc/systemd/system/twin-test.service" <<'END'
[Unit]
After=multi-user.target
[Service]
ExecStart=/bin/bash -c 'bash /src/deploy/edge/test-inside.sh >/root/test.log 2>&1 && touch /root/passed; systemctl poweroff'
END
    mkdir -p "$folder/etc/systemd/system/multi-user.target.wants"
    ln -sf ../twin-test.service "$folder/etc/systemd/system/multi-user.target.wants/"
    systemd-nspawn --quiet --directory="$folder" --register=no --keep-unit --boot --console=pipe --resolv-conf=off \
        --bind-ro="$checkout:/src" --bind-ro="$device/device:/device" --bind-ro=/etc/ssl/certs \
        </dev/null >"$device/console" 2>&1 || true
else
    # shellcheck disable=SC2016 # expanded inside
    if unshare --mount --pid --fork --kill-child bash -euc '
        mount --bind "$1" "$1"; mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; mount -t tmpfs tmpfs "$1/tmp"
        mount --bind "$2" "$1/src"; mount --bind "$3" "$1/device"; mount --rbind /etc/ssl/certs "$1/etc/ssl/certs"
        exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot "$1" bash /src/deploy/edge/test-inside.sh
    ' bash "$folder" "$checkout" "$device/device" >"$result" 2>&1; then
        touch "$folder/root/passed"
    fi
fi
rm -rf "$device"
grep '^==' "$result" || true
[ -e "$folder/root/passed" ] || {
    tail -n 30 "$result"
    echo "FAILED; all of it: $result" >&2
    exit 1
}
echo "passed on $suite $arch"
