#!/bin/sh
# Takes a container of docker-run.sh out of the network and removes it. It stays when a plug-in fails, for another try.
set -eu

[ $# -eq 2 ] || {
    echo "usage: docker-del.sh <container-name> <container-namespace>" >&2
    exit 1
}

# shellcheck source=deploy/docker-cni.sh
. "$(dirname "$0")/docker-cni.sh"
prepare

id=$("$engine" inspect --type container --format '{{.Id}}' "$1") || fail "there is no container $1"
describe "$id" "$1" "$2"
del || fail "container $1 stays; try again when the reason above is gone"
remove_container "$id"
