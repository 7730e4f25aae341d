#!/bin/sh
# Takes a container of docker-run.sh out of the network and removes it. It stays when a plug-in fails, for another try. What is
# left of one that was removed by hand goes, too; nothing left is fine.
set -eu

[ $# -eq 2 ] || {
    echo "usage: docker-del.sh <container-name> <container-namespace>" >&2
    exit 1
}

# shellcheck source=deploy/docker-cni.sh
. "$(dirname "$0")/docker-cni.sh"
prepare

# ids NAME NAMESPACE: the container of that name, and all that were added under it and are not deleted yet.
ids() {
    "$engine" inspect --type container --format '{{.Id}}' "$1" 2>/dev/null || true
    for directory in "$kept"/*/; do
        [ ! -f "$directory/who" ] || while read -r _ name namespace; do
            [ "$name/$namespace" != "$1/$2" ] || basename "$directory"
        done <"$directory/who"
    done
}

# take_away ID NAME NAMESPACE
take_away() {
    # Another engine may have answered first by now. Ours must, or a container that runs would seem to be gone.
    [ ! -f "$kept/$1/who" ] || read -r engine _ <"$kept/$1/who"
    answers "$engine" || fail "$engine, which has container $2, does not answer: is its service running?"
    describe "$1" "$2" "$3"
    del || fail "container $2 ($1) stays; try again when the reason above is gone"
    "$engine" inspect --type container "$1" >/dev/null 2>&1 || return 0
    remove_container "$1"
}

found=$(ids "$1" "$2" | sort -u)
[ -n "$found" ] || echo "nothing is left of $2/$1" >&2
failed=0
for id in $found; do
    (take_away "$id" "$1" "$2") || failed=1
done
exit "$failed"
