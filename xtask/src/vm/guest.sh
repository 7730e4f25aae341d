# Runs the checks of /run/checks, each a line "name|seconds|command", in the VM. What begins with @ is for the host.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
ip link set lo up
echo "@up $(uname -r)"
while IFS='|' read -r name seconds command; do
    echo "@begin $name"
    timeout -k 5 "$seconds" sh -c "$command" 2>&1 < /dev/null
    echo "@end $name $?"
done < /run/checks
echo @done
exec /run/busybox reboot -f
