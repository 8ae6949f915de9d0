#!/bin/bash
# The inside half of machine.py: in fresh namespaces, build a root over the host's own one, enter it, become systemd.
#   enter.sh HOME CGROUPS [PATH...]
# HOME: an empty directory. CGROUPS: "v2", or the v1 controllers that are mounted, with "unified" among them for a
# hybrid. PATHs are shown inside, read-only, at the same place. Nothing of this is seen outside the namespaces.
set -e
home=$1 cgroups=$2
shift 2

mount -t tmpfs -o size=2g,mode=755 box "$home"
mkdir "$home"/{upper,work,root}
root=$home/root
# On a tmpfs, because an overlay may not have a layer inside another of its layers.
mount -t overlay box -o "lowerdir=/,upperdir=$home/upper,workdir=$home/work" "$root"

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
while read -r name minor; do mknod -m 666 "$root/dev/$name" c "${minor%:*}" "${minor#*:}"; done <<NODES
null 1:3
zero 1:5
full 1:7
random 1:8
urandom 1:9
tty 5:0
NODES
mkdir "$root"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"

if [ "$cgroups" = v2 ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    for controller in $cgroups; do
        mkdir "$root/sys/fs/cgroup/$controller"
        case $controller in
        unified) mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified" ;;
        systemd) mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd" ;;
        *) mount -t cgroup -o "$controller" cgroup "$root/sys/fs/cgroup/$controller" ;;
        esac
    done
fi

for path; do
    mkdir -p "$root$path"
    mount --rbind "$path" "$root$path"
    mount -o remount,bind,ro "$root$path"
done

ip link set lo up
hostname sdbox
: >"$root/etc/machine-id"
units=$root/etc/systemd/system
# A target of its own: the host's multi-user.target may start whatever is installed there.
cat >"$units/sdbox.target" <<UNIT
[Unit]
Requires=basic.target
After=basic.target
Wants=dbus.service
AllowIsolate=yes
UNIT
for unit in getty@ console-getty systemd-timesyncd systemd-udevd systemd-networkd systemd-resolved e2scrub_reap; do
    ln -sf /dev/null "$units/$unit.service"
done

cd "$root"
mkdir .outside
pivot_root . .outside
cd /
umount -l /.outside
rmdir /.outside
# In a container systemd leaves this to us; without it LoadCredential= and others fail silently.
mount --make-rshared /
exec env -i container=sdbox PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_module,-sys_time,-syslog,-sys_rawio \
    /lib/systemd/systemd --unit=sdbox.target --log-target=console
