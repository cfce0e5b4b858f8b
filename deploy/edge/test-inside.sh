#!/bin/bash
# What test-debian.sh runs inside the root file system: an installation as a user does it. Stops at
# the first thing that is not so.
set -xeuo pipefail

step() { echo "== $*"; }
current() { readlink /opt/living-twin/current; }
is_booted() { [ -d /run/systemd/system ]; }
shown() { systemctl show --property="$1" --value edge-agent; }
refused() { # CODE COMMAND...: it ends with that code
    local wanted=$1 code=0
    shift
    "$@" || code=$?
    [ "$code" = "$wanted" ]
}
eventually() { # COMMAND...: within a minute
    for _ in $(seq 60); do
        if "$@"; then return; fi
        sleep 1
    done
    return 1
}

installer=/src/deploy/edge/install.sh
sh $installer uninstall --purge
step "$(uname -m), $(python3 --version)"
sh $installer
first=$(current)
step "installed $first: $(du -sm "/opt/living-twin/$first" | cut -f 1) MB"
refused 1 edge-agent check

step "configured"
cp -r /device/agent.toml /device/bundle /device/trusted.pem /etc/edge-agent/
sed -i 's,^state = .*,state = "/var/lib/edge-agent/state.db",' /etc/edge-agent/agent.toml
cat >/usr/local/bin/read-bms <<'END'
#!/bin/sh
i=0
while :; do
    i=$((i + 1))
    echo "{\"time_s\": $((1700000000 + i)), \"odometer\": $i, \"distance_km\": $i, \"load_kg\": 500, \"voltage_v\": 3.9}"
    sleep 1
done
END
chmod 755 /usr/local/bin/read-bms
echo SAMPLES=/usr/local/bin/read-bms >/etc/edge-agent/environment
runuser -u edge-agent -- edge-agent check

step "enrolled"
cd /root
edge-agent enroll --vehicle car-1
[ "$(stat -c '%U %a' /etc/edge-agent/tls/vehicle.key)" = 'edge-agent 600' ]
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=authority" -keyout ca.key -out ca.crt
openssl req -in /etc/edge-agent/tls/vehicle.csr -verify -noout
openssl x509 -req -in /etc/edge-agent/tls/vehicle.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out car-1.crt
edge-agent enroll --certificate car-1.crt --ca ca.crt | sed -n '/^\[mqtt.tls\]/,$p' >>/etc/edge-agent/agent.toml
runuser -u edge-agent -- edge-agent check | grep 'mutual TLS'

step "predicts: two trips, one breach"
install -m 644 /device/trips.csv /tmp/trips.csv
runuser -u edge-agent -- edge-agent replay /tmp/trips.csv --json | grep '"trips": 2, "trips_passed_over": 0, "breaches": 1'

step "again: nothing to do"
sh $installer | grep 'is here already'
[ "$(current)" = "$first" ]

if is_booted; then
    step "runs, sandboxed; $(systemd-analyze security --no-pager edge-agent | tail -n 1)"
    systemctl enable --now edge-agent
    tells_status() { shown StatusText | grep -q 'offline, keeping'; }
    eventually tells_status
    main=$(shown MainPID)
    [ "$(cat "/proc/$main/comm")" = edge-agent ]
    grep VmRSS "/proc/$main/status"
    logs_outage() { journalctl --namespace=edge-agent --no-pager | grep broker_unreachable; }
    eventually logs_outage

    step "shows itself to this machine, from within the sandbox"
    printf '[live]\nport = 8377\n' >>/etc/edge-agent/agent.toml
    systemctl restart edge-agent
    shows() { python3 -c 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:8377/live.json").read().decode())' | grep '"vehicle_id":"car-1"'; }
    eventually shows

    step "tests a bundle from over the air within the sandbox"
    sum=$(sha256sum /etc/edge-agent/bundle/manifest.json | cut -d ' ' -f 1)
    folder=/etc/edge-agent/bundle
    printf '{"folder": "%s", "bundle": "%s", "running": "%s", "breaches": []}' $folder "$sum" $folder >/tmp/question
    mkdir -p /run/systemd/system/edge-agent.service.d
    cat >/run/systemd/system/edge-agent.service.d/test.conf <<'END'
[Service]
Type=oneshot
WatchdogSec=0
Restart=no
StandardInput=file:/tmp/question
StandardOutput=truncate:/tmp/answer
ExecStart=
ExecStart=/opt/living-twin/current/bin/python -P -m edge_agent.bundle_update.self_test
END
    systemctl daemon-reload
    systemctl restart edge-agent
    [ "$(cat /tmp/answer)" = '{"problem":""}' ]
    rm -r /run/systemd/system/edge-agent.service.d
    systemctl daemon-reload
    systemctl restart edge-agent
    eventually tells_status

    step "hangs, and is started again"
    mkdir -p /run/systemd/system/edge-agent.service.d
    printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/edge-agent.service.d/test.conf
    systemctl daemon-reload
    systemctl restart edge-agent
    main=$(shown MainPID)
    kill -STOP "$main"
    has_another_process() { [ "$(shown NRestarts)" -ge 1 ] && systemctl is-active edge-agent && [ "$(shown MainPID)" != "$main" ]; }
    eventually has_another_process
    rm -r /run/systemd/system/edge-agent.service.d
    systemctl daemon-reload

    step "a version that does not come up is rolled back"
    rm -rf /root/next
    mkdir /root/next
    cp -r /src/common /src/edge_agent /src/deploy /src/requirements /src/LICENSE /root/next
    echo '__version__ = "9.0.0"' >/root/next/edge_agent/__init__.py
    sed -i 's/^def _run(.*/&\n    raise SystemExit(1)/' /root/next/edge_agent/cli.py
    refused 5 sh /root/next/deploy/edge/install.sh upgrade
    [ "$(current)" = "$first" ]
    systemctl is-active edge-agent

    step "an upgrade, and back"
    cp /src/edge_agent/cli.py /root/next/edge_agent/cli.py
    sh /root/next/deploy/edge/install.sh upgrade
    edge-agent --version | grep 9.0.0
    sh /opt/living-twin/current/install.sh rollback
    [ "$(current)" = "$first" ]
    systemctl is-active edge-agent
fi

step "uninstalled, state and key kept"
sh $installer uninstall
[ ! -e /opt/living-twin ] && [ -e /etc/edge-agent/tls/vehicle.key ] && [ -e /var/lib/edge-agent/state.db ]
sh $installer uninstall --purge
[ ! -e /etc/edge-agent ] && [ ! -e /var/lib/edge-agent ]
