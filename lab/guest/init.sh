#!/bin/busybox sh
# The guest's first process. The root is the prepared Debian tree, read-only over 9p, with a tmpfs above it: the guest may
# write anywhere, and the host never sees it. Only /out is the host's own folder. What to run is /out/start.sh.
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
fail() {
  echo "lab: cannot $1"
  poweroff -f
}
for module in /modules/*.ko; do insmod "$module" || echo "lab: cannot load $module"; done
share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2" || fail "mount $1"; }

mkdir -p /base /over
share root /base ro,cache=loose
mount -t tmpfs tmpfs /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/base,upperdir=/over/upper,workdir=/over/work overlay /root || fail "mount the root"
cd /root && mkdir -p proc sys dev run tmp root out node project opt/busybox var/lib
share out out cache=none
share node node ro,cache=loose
share project project ro,cache=loose

# The tree's packages bring their own tools; what they lack, busybox has. It comes last in the PATH.
cp /bin/busybox opt/busybox/
chroot . /opt/busybox/busybox --install -s /opt/busybox
[ -e bin/sh ] || ln -s /opt/busybox/sh bin/sh
printf 'root:x:0:0:root:/root:/bin/sh\n' >etc/passwd
printf 'root:x:0:\n' >etc/group
printf '127.0.0.1 localhost\n' >etc/hosts
ip link set lo up

for word in $(cat /proc/cmdline); do
  case $word in
    lab.cgroup=v2) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
    lab.cgroup=v1)
      mount -t tmpfs tmpfs /sys/fs/cgroup
      for controller in devices freezer pids memory cpu,cpuacct; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || fail "mount cgroup $controller"
      done
      ;;
  esac
done
for mount in proc sys dev; do mount --move /$mount /root/$mount; done
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
read -r uptime _ <proc/uptime
echo "lab: root is ready after $uptime s"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/busybox HOME=/root TERM=linux
# The end is a hard one: an orderly one waits for drivers that the last scenario may have left in the middle of something.
exec switch_root /root /opt/busybox/sh -c 'sh /out/start.sh; echo "lab: start.sh ended with $?"; echo b >/proc/sysrq-trigger'
