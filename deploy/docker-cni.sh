# shellcheck shell=sh
# Read by docker-run.sh and docker-del.sh, which lie beside it: the engine, the network, and how its plug-ins are called.
#
# Variables: ENGINE (docker, podman or nerdctl; else the first of them that answers), CNI_CONFLIST, CNI_PATH,
# PUBLISH ("8080:80 5353:53/udp", for portmap), DEBUG=1 (prints results).

conflist=${CNI_CONFLIST:-/etc/cni/net.d/10-azure.conflist}
export CNI_PATH="${CNI_PATH:-/opt/cni/bin}"
export CNI_IFNAME=eth0
# What DEL needs of every container that was added, in a directory of its own: `who` (engine, name, namespace), `conflist`,
# `publish`, and `result` once ADD is through.
kept=/run/azure-vnet-docker

fail() {
    echo "$*" >&2
    exit 1
}

# What is needed, before anything is touched.
prepare() {
    [ "$(id -u)" = 0 ] || fail "plug-ins change the network: run this as root"
    command -v jq >/dev/null || fail "jq is not installed: apt-get install jq"
    for candidate in ${ENGINE:-docker podman nerdctl}; do
        if answers "$candidate"; then
            engine=$candidate
            return
        fi
    done
    fail "no engine answers (${ENGINE:-docker, podman, nerdctl}): is one installed, and its service running?"
}

answers() {
    "$1" ps -q >/dev/null 2>&1
}

read_conflist() {
    [ -r "$conflist" ] || fail "there is no $conflist: install the network's conflist, or name it in CNI_CONFLIST"
    network=$(jq -er .name "$conflist") || fail "$conflist is not JSON or has no \`name\`; \`vnetctl validate\` tells more"
    plugins=$(jq -er '.plugins | length | select(. > 0)' "$conflist") || fail "$conflist has no \`plugins\`"
}

# describe ID NAME NAMESPACE: for the plug-ins. A container that does not run, or is not there, has no namespace.
describe() {
    pid=$("$engine" inspect --type container --format '{{.State.Pid}}' "$1" 2>/dev/null) || pid=0
    netns=
    [ "$pid" = 0 ] || netns=/proc/$pid/ns/net
    export CNI_CONTAINERID="$1" CNI_NETNS="$netns"
    export CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=$3;K8S_POD_NAME=$2"
}

# netconf INDEX PREVIOUS: the configuration of a plug-in, as libcni flattens it.
netconf() {
    jq -c --argjson index "$1" --argjson previous "$2" --arg publish "${PUBLISH:-}" '
        def port: . as $text | [capture("^(?<host>[0-9]{1,5}):(?<pod>[0-9]{1,5})(/(?<protocol>tcp|udp|sctp))?$")
                | {hostPort: .host | tonumber, containerPort: .pod | tonumber, protocol: (.protocol // "tcp")}
                | select([.hostPort, .containerPort] | all(. > 0 and . < 65536))]
            | if . == [] then error("PUBLISH: \($text) is not HOST:CONTAINER[/tcp|/udp|/sctp]") else .[0] end;
        [$publish | splits(" +") | select(. != "") | port] as $ports
        | .plugins[$index] + {name, cniVersion: (.cniVersion // "0.1.0")}
        | if $previous then .prevResult = $previous else . end
        | if .capabilities.portMappings and $ports != [] then .runtimeConfig.portMappings = $ports else . end' "$conflist"
}

# Whether all of PUBLISH can be done, before anything is touched.
check_publish() {
    [ -n "${PUBLISH:-}" ] || return 0
    netconf 0 null >/dev/null || fail "nothing was started: correct PUBLISH"
    jq -e 'any(.plugins[]; .capabilities.portMappings)' "$conflist" >/dev/null ||
        fail "PUBLISH is set, but no plug-in of $conflist has the capability portMappings: add portmap with it, or leave PUBLISH out"
}

# call VERB INDEX PREVIOUS: what the plug-in prints. Its error is told as Azure's script does.
call() {
    type=$(jq -r --argjson index "$2" '.plugins[$index].type' "$conflist")
    if ! program=$(PATH=$CNI_PATH && command -v "$type"); then
        echo "$network : error executing $1: the plug-in $type is not in $CNI_PATH" >&2
        return 1
    fi
    if ! printed=$(netconf "$2" "$3" | CNI_COMMAND=$1 "$program"); then
        message=$(printf '%s\n' "$printed" | jq -r '[.msg, .details] | map(select(. != null and . != "")) | join(": ")' 2>/dev/null)
        echo "$network : error executing $1: ${message:-$printed} ($type)" >&2
        return 1
    fi
    [ "${DEBUG:-0}" = 0 ] || echo "$type: $printed" >&2
    printf '%s\n' "$printed"
}

# keep ID NAME NAMESPACE: what DEL needs, even when the container is gone by then and the conflist another one.
keep() {
    mkdir -p "$kept/$1"
    cp "$conflist" "$kept/$1/conflist"
    printf '%s' "${PUBLISH:-}" >"$kept/$1/publish"
    printf '%s %s %s\n' "$engine" "$2" "$3" >"$kept/$1/who"
}

# Calls every plug-in for CNI_CONTAINERID, the last one first, whatever the others say.
del() {
    previous=null
    if [ -f "$kept/$CNI_CONTAINERID/who" ]; then
        conflist=$kept/$CNI_CONTAINERID/conflist
        PUBLISH=$(cat "$kept/$CNI_CONTAINERID/publish")
        [ ! -s "$kept/$CNI_CONTAINERID/result" ] || previous=$(cat "$kept/$CNI_CONTAINERID/result")
    fi
    read_conflist
    index=$plugins
    deleted=0
    while [ "$index" -gt 0 ]; do
        index=$((index - 1))
        call DEL "$index" "$previous" >/dev/null || deleted=1
    done
    [ "$deleted" != 0 ] || rm -rf "${kept:?}/$CNI_CONTAINERID"
    return "$deleted"
}

# A process that is the first of its container ignores what `rm` would try for ten seconds.
remove_container() {
    "$engine" kill "$1" >/dev/null 2>&1 || true
    "$engine" rm --force "$1" >/dev/null
}
