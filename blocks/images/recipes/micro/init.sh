#!/bin/sh
# What a micro guest does at every boot, told on the console line by line (FIFTY-MARK):
# network, config drive (name, keys), login, file system, user data, ready.
export PATH=/bin:/sbin
say() { echo "FIFTY-MARK $*" >/dev/console; }
timed() { read -r up _ </proc/uptime; say "$1 $up"; }

timed init
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
ip link set lo up

# The config drive, a virtio disk or a CD-ROM: an ISO 9660 volume called config-2. The name
# stands 40 bytes into the primary volume descriptor, which is sector 16 (ECMA-119, 8.4).
drive=
for device in /dev/vd[b-z] /dev/sr0; do
    [ -b "$device" ] || continue
    [ "$(dd if="$device" bs=8 skip=4101 count=1 2>/dev/null)" = config-2 ] || continue
    mount -t iso9660 -o ro "$device" /mnt/config && drive=/mnt/config/openstack/latest
    break
done
: >/run/plan
if [ -n "$drive" ]; then
    set -- "$drive/meta_data.json"
    [ -f "$drive/network_data.json" ] && set -- "$@" "$drive/network_data.json"
    awk -f /lib/micro/config-drive.awk "$@" >/run/plan || say error the config drive is not JSON
else
    say error no config drive
fi

instance=
old=$(cat /etc/instance-id 2>/dev/null)
umask 077
while read -r verb value; do
    case $verb in
    uuid) instance=$value ;;
    hostname) [ -n "$value" ] && hostname "$value" && echo "$value" >/etc/hostname ;;
    key)
        mkdir -p /root/.ssh
        grep -qxF "$value" /root/.ssh/authorized_keys 2>/dev/null ||
            echo "$value" >>/root/.ssh/authorized_keys
        ;;
    esac
done </run/plan
# Another instance (a copy of this disk) is another host: new host keys.
if [ "$instance" != "$old" ]; then rm -f /etc/dropbear/host_key; fi
if [ -f /etc/hostname ] && [ -z "$drive" ]; then hostname -F /etc/hostname; fi
umask 022

# The networks come up while the login server starts. Interfaces that network_data.json gives
# a fixed address get that; the others ask DHCP.
configure() {
    while read -r verb whose first second third; do
        [ "$whose" = "$2" ] || continue
        case $verb in
        mtu) ip link set "$1" mtu "$first" ;;
        address) ip addr add "$first/$second" brd + dev "$1" && say "static $1 $first/$second" ;;
        route) ip route replace "$first/$second" via "$third" dev "$1" metric "10${1#eth}" ;;
        esac
    done </run/plan
}
while read -r verb value; do
    [ "$verb" = dns ] && echo "nameserver $value"
done </run/plan >/run/resolv.static
cat /run/resolv.static >/etc/resolv.conf
waiting=
for interface in /sys/class/net/eth*; do
    [ -e "$interface" ] || continue
    read -r mac <"$interface/address"
    interface=${interface##*/}
    ip link set "$interface" up
    configure "$interface" "$mac"
    if ! grep -q "^address $mac " /run/plan; then
        udhcpc -b -t 15 -T 1 -A 3 -S -i "$interface" -p "/run/udhcpc.$interface" \
            -O mtu -O staticroutes -s /lib/micro/udhcpc >"/run/udhcpc.$interface.log" 2>&1 &
        waiting="$waiting $!"
    fi
done

mkdir -p /etc/dropbear
[ -f /etc/dropbear/host_key ] ||
    dropbearkey -t ed25519 -f /etc/dropbear/host_key >/run/dropbearkey.log 2>&1 ||
    say error no host key
dropbear -s -r /etc/dropbear/host_key -p 22 || say error dropbear
timed sshd

resize2fs /dev/vda1 >/run/resize2fs.log 2>&1 || say error resize2fs
wait $waiting
for interface in /sys/class/net/eth*; do
    interface=${interface##*/}
    ip -4 -o addr show "$interface" | grep -q inet || say "error no address on $interface"
done

# User data that is a script runs once in an instance's life, as cloud-init has it.
if [ "$instance" != "$old" ] && [ -s "$drive/user_data" ]; then
    if [ "$(dd if="$drive/user_data" bs=2 count=1 2>/dev/null)" = '#!' ]; then
        cp "$drive/user_data" /run/user-data
        chmod 700 /run/user-data
        (cd / && exec /run/user-data) >/var/log/user-data.log 2>&1
        code=$?
        if [ $code -eq 0 ]; then say user-data done; else say "error user-data ended with $code"; fi
    else
        say user-data passed over, not a script
    fi
fi
[ -n "$instance" ] && echo "$instance" >/etc/instance-id
[ -n "$drive" ] && umount /mnt/config
sync

while read -r module; do insmod "/lib/micro/modules/$module"; done </lib/micro/modules/order
say "ready $(hostname)"
