#!/bin/sh
# The initial RAM disk: load the drivers, grow partition 1, hand over to the root file system.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
read -r up _ </proc/uptime
echo "FIFTY-MARK kernel $up"
while read -r module; do insmod "/modules/$module"; done </modules/order

tries=0
while [ ! -b /dev/vda1 ] && [ $tries -lt 200 ]; do usleep 50000; tries=$((tries + 1)); done
[ -b /dev/vda1 ] || echo "FIFTY-MARK error no disk /dev/vda with a partition"

# Partition 1 ends where the disk ends. This is done here because the kernel rereads the
# table of a disk only while nothing of it is mounted. An MBR counts at most 2^32-1 sectors.
read -r disk </sys/class/block/vda/size
read -r start </sys/class/block/vda1/start
read -r size </sys/class/block/vda1/size
wanted=$((disk - start))
[ $wanted -gt 4294967295 ] && wanted=4294967295
if [ $wanted -gt "$size" ]; then
    # Entry 1 begins at byte 446; its sector count, little-endian, 12 bytes later.
    bytes=
    for shift in 0 8 16 24; do
        bytes="$bytes\\x$(printf %02x $((wanted >> shift & 255)))"
    done
    printf "$bytes" | dd of=/dev/vda bs=1 seek=458 conv=notrunc 2>/dev/null
    blockdev --rereadpt /dev/vda
    tries=0
    while [ ! -b /dev/vda1 ] && [ $tries -lt 200 ]; do usleep 50000; tries=$((tries + 1)); done
fi

mount -t ext4 -o rw,noatime /dev/vda1 /root || echo "FIFTY-MARK error no root file system"
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
exec switch_root /root /sbin/init
