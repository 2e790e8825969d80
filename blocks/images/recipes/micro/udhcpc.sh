#!/bin/sh
# What to do with a DHCP answer (udhcpc calls this). RFC 3442: where option 121 is given, it
# holds all the routes, and the router option is not looked at. Of several interfaces the
# first one's routes win, as the order of a VM's networks is the order of its interfaces.
metric=10${interface#eth}
case $1 in
deconfig)
    ip -4 addr flush dev "$interface"
    ;;
bound | renew)
    ip -4 addr flush dev "$interface"
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    ip addr add "$ip/${mask:-24}" brd + dev "$interface"
    if [ -n "$staticroutes" ]; then
        set -- $staticroutes
        while [ $# -ge 2 ]; do
            if [ "$2" = 0.0.0.0 ]; then
                ip route replace "$1" dev "$interface" metric "$metric"
            else
                # A gateway outside of the own network (169.254.169.254's, say) is on the link.
                ip route replace "$1" via "$2" dev "$interface" metric "$metric" 2>/dev/null ||
                    ip route replace "$1" via "$2" dev "$interface" metric "$metric" onlink
            fi
            shift 2
        done
    elif [ -n "$router" ]; then
        ip route replace default via "${router%% *}" dev "$interface" metric "$metric"
    fi
    for server in $dns; do echo "nameserver $server"; done >"/run/resolv.$interface"
    [ -n "$domain" ] && echo "search $domain" >>"/run/resolv.$interface"
    cat /run/resolv.* >/etc/resolv.conf
    echo "FIFTY-MARK dhcp $interface $ip/${mask:-24}" >/dev/console
    ;;
esac
