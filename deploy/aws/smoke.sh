#!/usr/bin/env bash
# Prove the loop on a real AWS account, and leave nothing behind:
#   deploy/aws/smoke.sh --dry-run      say what it would do; touches nothing
#   deploy/aws/smoke.sh                do it: about five minutes, less than a cent
# Needs the aws command line with credentials and a region, openssl, curl, and this checkout's
# environment (`make setup`; `. .venv/bin/activate`). The account may make IoT policies, things and
# certificates, a Lambda function, IAM roles and a CloudFormation stack. It makes
#   a stack twin-smoke-<number> (policies, provisioning template), two things with a certificate each,
#   one vehicle's retained messages,
# lets a simulated vehicle drive until a breach has become a revision that it applied, and removes all.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
name=twin-smoke-$$
service=$name-cloud
vehicle=V001
dry=''
case ${1-} in
    --dry-run) dry=yes ;;
    '') ;;
    *)
        echo "usage: smoke.sh [--dry-run]" >&2
        exit 2
        ;;
esac

say() { printf '\n== %s\n' "$*" >&2; }
# Run a command, or say it.
run() {
    if [ -n "$dry" ]; then
        printf '+ %s\n' "$*"
    else
        "$@"
    fi
}
# The same for one whose answer is needed; $1 stands for it in a dry run.
ask() {
    local instead=$1
    shift
    if [ -n "$dry" ]; then
        printf '+ %s\n' "$*" >&2
        printf '%s\n' "$instead"
    else
        "$@"
    fi
}
write() {
    if [ -n "$dry" ]; then
        printf '+ write %s\n' "$1"
        cat >/dev/null
    else
        cat >"$1"
    fi
}

if [ -z "$dry" ]; then
    for program in aws openssl curl twin-cloud edge-agent firmware-sim; do
        command -v "$program" >/dev/null || {
            echo "smoke.sh: $program is not on the PATH: see the top of this file." >&2
            exit 1
        }
    done
    work=$(mktemp -d)
else
    work=/tmp/twin-smoke
fi
serving=''

forget_thing() {
    run twin-cloud aws offboard "$1" || true
    local principal
    for principal in $(ask CERTIFICATE_ARN aws iot list-thing-principals --thing-name "$1" --query principals --output text); do
        run aws iot detach-policy --policy-name "$2" --target "$principal" || true
        run aws iot detach-thing-principal --thing-name "$1" --principal "$principal" || true
        run aws iot delete-certificate --certificate-id "${principal##*/}" --force-delete || true
    done
    run aws iot delete-thing --thing-name "$1" || true
}

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    say "Clean up"
    if [ -n "$serving" ]; then
        kill "$serving" 2>/dev/null || true
        wait "$serving" 2>/dev/null || true
    fi
    set +e
    for kind in status parameters bundle keys; do
        run aws iot-data publish --topic "twin/v1/$vehicle/$kind" --qos 1 --retain --payload ''
    done
    forget_thing "$vehicle" "$name-vehicle"
    forget_thing "$service" "$name-service"
    run aws cloudformation delete-stack --stack-name "$name"
    run aws cloudformation wait stack-delete-complete --stack-name "$name"
    if [ "$code" != 0 ] && [ -z "$dry" ]; then
        echo "smoke.sh: FAILED; the logs are in $work" >&2
    else
        run rm -rf "$work"
    fi
    exit "$code"
}

say "Who am I"
run aws sts get-caller-identity --output text --query Arn
if [ -z "$dry" ] && aws iot describe-thing --thing-name "$vehicle" >/dev/null 2>&1; then
    echo "smoke.sh: the account has a vehicle $vehicle already: this is no place to try." >&2
    exit 1
fi
trap clean_up EXIT INT TERM

say "Policies and provisioning template"
run aws cloudformation deploy --stack-name "$name" --template-file "$here/stack.yaml" \
    --capabilities CAPABILITY_IAM \
    --parameter-overrides "Name=$name" "ClientId=$service" "SharedGroup=$service"

say "A fleet of two, a bundle, keys"
run firmware-sim fleet --vehicles 2 --trips 40 --seed 1 --format csv --out "$work/fleet"
run twin-cloud train "$work/fleet/discharge_curves.csv" --target voltage_v \
    --features distance_km,average_speed_m_s,load_kg --health-sweep distance_km \
    --cutoff-voltage 2.05 --rate-prior gain:distance_km=1e-5 --rate-prior gain:output=1e-5 \
    --process-noise gain:distance_km=1e-9 --process-noise gain:output=1e-9 --out "$work/bundle"
run twin-cloud keys create --out "$work/keys"
run curl -fsS -o "$work/root.crt" https://www.amazontrust.com/repository/AmazonRootCA1.pem

say "Enroll the service and the vehicle; neither key leaves $work"
run openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$work/service.key" -subj "/CN=$service" -out "$work/service.csr"
host=$(ask ENDPOINT twin-cloud aws enroll-service "$service" --request "$work/service.csr" --out "$work/service.crt" --name "$name")
write "$work/agent.toml" <<END
vehicle_id = "$vehicle"
bundle = "bundle"
state = "state.db"
trusted_keys = ["keys/public.pem"]
[mqtt]
host = "$host"
port = 443
[mqtt.tls]
ca_file = "tls/ca.crt"
cert_file = "tls/vehicle.crt"
key_file = "tls/vehicle.key"
[source]
time_s = "unix_time_s"
odometer = "odometer_km"
END
run edge-agent enroll --config "$work/agent.toml" --vehicle "$vehicle"
run twin-cloud aws enroll "$vehicle" --request "$work/tls/vehicle.csr" --out "$work/vehicle.crt" --name "$name" --service "$service"
run edge-agent enroll --config "$work/agent.toml" --certificate "$work/vehicle.crt" --ca "$work/root.crt"
run edge-agent check --config "$work/agent.toml"

say "The service"
write "$work/twin-cloud.toml" <<END
[mqtt]
transport = "aws"
host = "$host"
port = 443
client_id = "$service"
shared_group = "$service"
[mqtt.tls]
ca_file = "root.crt"
cert_file = "service.crt"
key_file = "service.key"
[store]
path = "twin.db"
[bundles]
paths = ["bundle"]
[keys]
private = "keys/private.pem"
[api]
auth = "none"
port = 0
END
if [ -n "$dry" ]; then
    printf '+ twin-cloud serve --config %s/twin-cloud.toml &\n' "$work"
else
    twin-cloud serve --config "$work/twin-cloud.toml" >"$work/service.log" 2>&1 &
    serving=$!
    for _ in $(seq 60); do
        grep -q 'ready api=' "$work/service.log" && break
        kill -0 "$serving" || exit 1
        sleep 1
    done
    grep -q 'ready api=' "$work/service.log"
fi

say "A vehicle drives: breach, revision, verdict"
run edge-agent replay "$work/fleet/discharge_curves.csv" --config "$work/agent.toml" --wait-for-cloud 60
run twin-cloud verify --database "$work/twin.db"
history=$(ask '"verdict":"applied"' twin-cloud history "$vehicle" --database "$work/twin.db" --json)
if ! printf '%s' "$history" | grep -q '"applied"'; then
    echo "smoke.sh: no revision was applied" >&2
    exit 1
fi
say "PROVED: a breach became a revision, and the vehicle applied it"
