# The seed as a shell script: settings, and the functions network, users, files and mounts, made of words that boot.sh
# knows. Reads user-data, meta-data and network-config, which must be JSON, as vmwright's are. In awk, because starting
# any other program costs a guest of an emulated server many seconds. Plain POSIX awk; LC_ALL must be C.

# ---- reading JSON: kind, text, size and member of each value, by its path (user-data/users/0/name) ----

# fail WHY: to standard error, and no script.
function fail(why) {
    printf "%s\n", document ": " why | "cat >&2"
    failed = 1
    exit 1
}

# Strings come whole, by their quotes, so a long text costs no more than a short one.
function tokenize(all,    piece, count, n, string) {
    last = 0
    count = split(all, piece, "\"")
    for (n = 1; n <= count; n++) {
        between(piece[n])
        if (++n > count) break
        string = piece[n]
        while (match(string, /\\+$/) && RLENGTH % 2) {  # the quote is part of the text
            if (++n > count) break
            string = string "\"" piece[n]
        }
        if (n >= count) fail("a string has no end")
        token[++last] = "string"
        value[last] = unescaped(string)
    }
}

function between(signs) {
    gsub(/[ \t\r\n]+/, " ", signs)
    while (match(signs, /[^ ]/)) {
        signs = substr(signs, RSTART)
        if (match(signs, /^[][{}:,]/)) RLENGTH = 1
        else if (!match(signs, /^(true|false|null|-?[0-9][-+.0-9eE]*)/)) fail("not JSON at " substr(signs, 1, 20))
        token[++last] = value[last] = substr(signs, 1, RLENGTH)
        signs = substr(signs, RLENGTH + 1)
    }
}

function unescaped(string,    high, low, code) {
    if (!index(string, "\\")) return string
    gsub(/\\\\/, "\001", string)  # no text has it as it is: JSON escapes what is below a space
    gsub(/\\"/, "\"", string)
    gsub(/\\\//, "/", string)
    gsub(/\\n/, "\n", string)
    gsub(/\\t/, "\t", string)
    gsub(/\\r/, "\r", string)
    gsub(/\\b/, "\b", string)
    gsub(/\\f/, "\f", string)
    while (match(string, /\\u[0-9a-fA-F][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F]/)) {
        high = substr(string, 1, RSTART - 1)
        low = substr(string, RSTART + RLENGTH)
        code = number(substr(string, RSTART + 2, 4))
        if (code >= 55296 && code < 56320 && low ~ /^\\u[dD][c-fC-F]/) {  # the first half of a character
            code = 65536 + (code - 55296) * 1024 + number(substr(low, 3, 4)) - 56320
            low = substr(low, 7)
        }
        string = high utf8(code) low
    }
    if (index(string, "\\")) fail("an escape that JSON does not have")
    return with(string, "\001", "\\")
}

# Every `sign` of a text as something else: what a backslash in gsub's second text means, each awk decides for itself.
function with(string, sign, other,    part, count, n, all) {
    count = split(string, part, sign)
    all = part[1]
    for (n = 2; n <= count; n++) all = all other part[n]
    return all
}

function number(hex,    n, sum) {
    for (n = 1; n <= 4; n++) sum = sum * 16 + index("0123456789abcdef", tolower(substr(hex, n, 1))) - 1
    return sum
}

# No shell can hold NUL: it is left out.
function utf8(code) {
    if (code == 0) return ""
    if (code == 1) fail("a text with the character 1")
    if (code < 128) return sprintf("%c", code)
    if (code < 2048) return sprintf("%c%c", 192 + int(code / 64), 128 + code % 64)
    if (code < 65536) return sprintf("%c%c%c", 224 + int(code / 4096), 128 + int(code / 64) % 64, 128 + code % 64)
    return sprintf("%c%c%c%c", 240 + int(code / 262144), 128 + int(code / 4096) % 64, 128 + int(code / 64) % 64,
        128 + code % 64)
}

function read_value(path,    name) {
    kind[path] = token[at]
    text[path] = value[at]
    size[path] = 0
    if (token[at] == "{") read_members(path)
    else if (token[at] == "[") read_items(path)
    else if (at > last || token[at] ~ /^[]}:,]$/) fail("not JSON: a value is missing")
    at++
}

function read_members(path,    name) {
    if (token[++at] == "}") return
    for (;;) {
        if (token[at] != "string" || token[at + 1] != ":") fail("not JSON: an object's key is missing")
        name = value[at]
        member[path, size[path]++] = name
        at += 2
        read_value(path "/" name)
        if (token[at] == "}") return
        if (token[at++] != ",") fail("not JSON: an object has no end")
    }
}

function read_items(path) {
    if (token[++at] == "]") return
    for (;;) {
        read_value(path "/" size[path]++)
        if (token[at] == "]") return
        if (token[at++] != ",") fail("not JSON: a list has no end")
    }
}

# ---- writing shell ----

function quoted(string) {
    return "'" with(string, "'", "'\\''") "'"
}

# The text at a path, for the shell; what is missing, null or false is what `otherwise` says.
function word(path, otherwise) {
    return quoted(kind[path] == "" || kind[path] == "null" || kind[path] == "false" ? otherwise : text[path])
}

# The commands in a list, one a line.
function script(path,    n, i, all, line) {
    for (n = 0; n < size[path]; n++) {
        line = text[path "/" n]
        if (kind[path "/" n] == "[") {
            line = ""
            for (i = 0; i < size[path "/" n]; i++) line = line (i ? " " : "") quoted(text[path "/" n "/" i])
        }
        all = all (n ? "\n" : "") line
    }
    return quoted(all)
}

# All texts of a list, with something between them.
function joined(path, glue,    n, all) {
    for (n = 0; n < size[path]; n++) all = all (n ? glue : "") text[path "/" n]
    return all
}

function network(path,    n, here, name) {
    for (n = 0; n < size[path]; n++) {
        here = path "/" member[path, n]
        name = word(here "/set-name", member[path, n])
        print "nic " quoted(tolower(text[here "/match/macaddress"])) " " name
        nic(here, name)
    }
}

function nic(here, name,    n) {
    for (n = 0; n < size[here "/addresses"]; n++) print "address " name " " quoted(text[here "/addresses/" n])
    if (kind[here "/dhcp4"] == "true")
        print "lease " name " " (kind[here "/dhcp4-overrides/use-routes"] == "false" ? "false" : "true")
    for (n = 0; n < size[here "/routes"]; n++)
        print "route " name " " quoted(text[here "/routes/" n "/to"]) " " quoted(text[here "/routes/" n "/via"])
    for (n = 0; n < size[here "/nameservers/addresses"]; n++)
        print "resolver nameserver " quoted(text[here "/nameservers/addresses/" n])
    if (size[here "/nameservers/search"]) print "resolver search " quoted(joined(here "/nameservers/search", " "))
}

function users(path,    n, here) {
    for (n = 0; n < size[path]; n++) {
        here = path "/" n
        print "user " word(here "/name") " " word(here "/sudo") " " quoted(joined(here "/ssh_authorized_keys", "\n"))
    }
}

function files(path,    n, here) {
    for (n = 0; n < size[path]; n++) {
        here = path "/" n
        print "file " word(here "/path") " " word(here "/permissions", "0644") " " word(here "/owner", "root:root") \
            " " word(here "/content")
    }
}

function mounts(path,    n, i, line) {
    for (n = 0; n < size[path]; n++) {
        line = "data_disk"
        for (i = 0; i < size[path "/" n]; i++) line = line " " quoted(text[path "/" n "/" i])
        print line
    }
}

# What cloud-init would do for these keys is done here, or is nothing in this guest.
function left_out(path,    n, known, all) {
    known = " hostname fqdn prefer_fqdn_over_hostname preserve_hostname manage_etc_hosts updates users disable_root " \
        "ssh_pwauth ssh_deletekeys ssh_genkeytypes no_ssh_fingerprints ssh growpart resize_rootfs locale bootcmd " \
        "write_files mounts runcmd apt "
    for (n = 0; n < size[path]; n++)
        if (!index(known, " " member[path, n] " ")) all = all " " member[path, n]
    if (kind[path "/locale"] == "string" && text[path "/locale"] != "false") all = all " locale"
    for (n = 0; n < size[path "/users"]; n++)
        if (kind[path "/users/" n "/hashed_passwd"] == "string") return all " passwords"
    return all
}

# ---- all of it ----

{
    if (FNR == 1) name[++documents] = FILENAME
    if (FNR == 1 && /^#/) next  # "#cloud-config"
    content[documents] = content[documents] $0 "\n"
}

END {
    for (n = 1; n <= documents && !failed; n++) {
        document = name[n]
        at = 1
        tokenize(content[n])
        read_value(document)
        if (at <= last) fail("not JSON: more than one value")
    }
    if (!failed && documents < 3) fail(documents " of its 3 documents are there")
    if (failed) exit 1
    print "instance=" word("meta-data/instance-id")
    print "name=" word("user-data/hostname", text["meta-data/local-hostname"])
    print "bootcmd=" script("user-data/bootcmd")
    print "runcmd=" script("user-data/runcmd")
    print "left_out=" quoted(left_out("user-data"))
    print "network() {"; network("network-config/ethernets"); print ":; }"
    print "users() {"; users("user-data/users"); print ":; }"
    print "files() {"; files("user-data/write_files"); print ":; }"
    print "mounts() {"; mounts("user-data/mounts"); print ":; }"
}
