#!/bin/busybox sh
# First process of the VM: the host's files, read-only, under an overlay in memory become the root; then guest.sh.
# The file /settings sets MODULES, the folder of the kernel's modules in the host's files.
busybox=/bin/busybox
$busybox mount -t devtmpfs dev /dev
exec > /dev/ttyS1 2>&1 < /dev/null
set -e
. /settings
for module in /modules/*; do
    $busybox insmod "$module"
done
$busybox mkdir /host /memory /new
$busybox mount -t virtiofs -o ro host /host
$busybox mount -t tmpfs memory /memory
$busybox mkdir /memory/upper /memory/work
$busybox mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /new
$busybox mount -t proc proc /new/proc
$busybox mount -t sysfs sys /new/sys
$busybox mount -t cgroup2 cgroup /new/sys/fs/cgroup
$busybox mount -t bpf bpf /new/sys/fs/bpf
$busybox mount -t devtmpfs dev /new/dev
$busybox mkdir -p /new/dev/pts /new/dev/shm
$busybox ln -s /proc/self/fd /new/dev/fd
$busybox mount -t devpts pts /new/dev/pts
for folder in dev/shm run; do
    $busybox mount -t tmpfs -o mode=1777 memory "/new/$folder"
done
modules=/new/lib/modules/$($busybox uname -r)
$busybox mkdir -p "$modules"
$busybox mount --bind "/new$MODULES" "$modules"
$busybox cp /bin/busybox /checks /guest.sh /new/run/
exec $busybox switch_root /new /bin/sh /run/guest.sh
