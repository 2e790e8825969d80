# Turn a config drive's meta_data.json and network_data.json (both OpenStack's) into lines
# that a shell can read:
#
#   uuid U | hostname H | key ssh-ed25519 AAAA... comment
#   dhcp MAC | address MAC IP BITS | route MAC NETWORK BITS GATEWAY | mtu MAC N | dns IP
#
# usage: awk -f config-drive.awk meta_data.json [network_data.json]

FNR == 1 { document++ }
{ text[document] = text[document] $0 "\n" }

END {
    for (d = 1; d <= document; d++) { rest = text[d]; parse("") }
    print "uuid " leaf["/uuid"]
    print "hostname " leaf["/hostname"]
    for (i = 0; ("/keys/" i "/data") in leaf; i++) print "key " leaf["/keys/" i "/data"]
    if (!i) for (path in leaf) if (path ~ /^\/public_keys\//) print "key " leaf[path]
    for (i = 0; ("/links/" i "/id") in leaf; i++) {
        mac[leaf["/links/" i "/id"]] = tolower(leaf["/links/" i "/ethernet_mac_address"])
        if (leaf["/links/" i "/mtu"] ~ /^[0-9]+$/)
            print "mtu " mac[leaf["/links/" i "/id"]] " " leaf["/links/" i "/mtu"]
    }
    for (i = 0; ("/networks/" i "/link") in leaf; i++) network("/networks/" i)
    for (i = 0; ("/services/" i "/address") in leaf; i++)
        if (leaf["/services/" i "/type"] == "dns") print "dns " leaf["/services/" i "/address"]
}

function network(at,    m, r) {
    m = mac[leaf[at "/link"]]
    if (leaf[at "/type"] == "ipv4_dhcp") { print "dhcp " m; return }
    if (leaf[at "/type"] != "ipv4") return
    print "address " m " " leaf[at "/ip_address"] " " bits(leaf[at "/netmask"])
    if ((at "/gateway") in leaf) print "route " m " 0.0.0.0 0 " leaf[at "/gateway"]
    for (r = 0; (at "/routes/" r "/gateway") in leaf; r++)
        print "route " m " " leaf[at "/routes/" r "/network"] " " \
            bits(leaf[at "/routes/" r "/netmask"]) " " leaf[at "/routes/" r "/gateway"]
}

# 255.255.255.0 -> 24
function bits(mask,    part, n, i, b) {
    split(mask, part, ".")
    for (i = 1; i <= 4; i++) for (b = part[i] + 0; b > 0; b = (b * 2) % 256) n++
    return n + 0
}

# The next token of `rest`: a string with its quotes, a number or word, or punctuation.
function token(    t) {
    if (!match(rest, /^[ \t\r\n]*("([^"\\]|\\.)*"|[^][{},:" \t\r\n]+|[][{},:])/)) return ""
    t = substr(rest, RSTART, RLENGTH)
    rest = substr(rest, RSTART + RLENGTH)
    sub(/^[ \t\r\n]+/, "", t)
    return t
}

function parse(path,    t, n, key) {
    t = token()
    if (t == "{") {
        while ((t = token()) != "}" && t != "") {
            if (t == ",") continue
            key = unquote(t)
            token()
            parse(path "/" key)
        }
    } else if (t == "[") {
        n = 0
        while (match(rest, /^[ \t\r\n]*[],]/)) if (token() == "]") return
        while (rest != "") {
            parse(path "/" n++)
            if (token() != ",") return
        }
    } else leaf[path] = unquote(t)
}

# Control characters become spaces: one value never spans two lines.
function unquote(t,    out, c) {
    if (t !~ /^"/) return t
    t = substr(t, 2, length(t) - 2)
    out = ""
    while (match(t, /\\./)) {
        c = substr(t, RSTART + 1, 1)
        out = out substr(t, 1, RSTART - 1)
        t = substr(t, RSTART + 2)
        if (c == "u") { t = substr(t, 5); c = "?" }
        else if (c ~ /[nrtbf]/) c = " "
        out = out c
    }
    return out t
}
