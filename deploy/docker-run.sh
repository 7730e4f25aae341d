#!/bin/sh
# Starts a container in the network of the conflist: the engine makes it without one, then every plug-in is called.
# It is removed again when that fails.
set -eu

[ $# -eq 3 ] || {
    echo "usage: docker-run.sh <container-name> <container-namespace> <image>" >&2
    exit 1
}

# shellcheck source=deploy/docker-cni.sh
. "$(dirname "$0")/docker-cni.sh"
prepare
read_conflist
check_publish
unset CNI_CONTAINERID
id=
# Tells our container, whoever ended before its id was known, and never another one of that name.
label=azure-vnet-docker=$(cat /proc/sys/kernel/random/uuid)

undo() {
    status=$?
    trap - EXIT
    trap '' HUP INT TERM
    [ -n "$id" ] || id=$("$engine" ps --all --quiet --no-trunc --filter "label=$label")
    [ -n "$id" ] || exit "$status"
    [ -z "${CNI_CONTAINERID:-}" ] || del || echo "the plug-ins may have left something of $id" >&2
    remove_container "$id" || echo "container $id stays: remove it by hand" >&2
    exit "$status"
}

trap undo EXIT
trap 'exit 130' HUP INT TERM
id=$("$engine" create --name "$1" --label "$label" --network none "$3" /bin/sleep 10000000)
"$engine" start "$id" >/dev/null
describe "$id" "$1" "$2"
[ -n "$CNI_NETNS" ] || fail "container $1 does not run: has $3 a /bin/sleep?"
keep "$id" "$1" "$2"
previous=null
index=0
while [ "$index" -lt "$plugins" ]; do
    previous=$(call ADD "$index" "$previous")
    index=$((index + 1))
done
printf '%s\n' "$previous" >"$kept/$id/result"
echo "$id"
trap - EXIT HUP INT TERM
