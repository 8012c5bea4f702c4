"""Small shell scripts that cloud-init runs inside guests. Each may run at any boot; a second run changes nothing.

They are written for a plain POSIX sh, get what they need as arguments (never by text put together), and keep what they
must remember in /var/lib/vmwright inside the guest. A rebuild throws that away together with the root disk.
"""

from __future__ import annotations

STATE = "/var/lib/vmwright"  # inside the guest

# $1: the guest's own address, $2: its names. Only our own line of the file is ever touched.
HOSTS = """\
new=/run/vmwright-hosts
grep -v '[[:space:]]# vmwright$' /etc/hosts > "$new"
printf '%s\\t%s # vmwright\\n' "$1" "$2" >> "$new"
cmp -s "$new" /etc/hosts || cat "$new" > /etc/hosts
rm -f "$new"
"""

# $1: the proxy, or empty for none.
DNF_PROXY = """\
file=/etc/dnf/dnf.conf; new=/run/vmwright-dnf; line=/run/vmwright-dnf-line
[ -f "$file" ] || exit 0
sed '/^# by vmwright:/,+1d' "$file" > "$new"
if [ -n "$1" ]; then
    printf '# by vmwright: the proxy of the cloud\\nproxy=%s\\n' "$1" > "$line"
    sed -i -e '/^proxy[[:space:]]*=/d' -e "/^\\[main\\]/r $line" "$new"
fi
cmp -s "$new" "$file" || cat "$new" > "$file"
rm -f "$new" "$line"
"""

# $1: the proxy, or empty for none.
ZYPPER_PROXY = """\
file=/etc/sysconfig/proxy; new=/run/vmwright-proxy
[ -f "$file" ] || exit 0
[ -n "$1" ] || grep -q '^# by vmwright:' "$file" || exit 0
sed -E -e '/^# by vmwright:/d' -e '/^(PROXY_ENABLED|HTTP_PROXY|HTTPS_PROXY)=/d' "$file" > "$new"
if [ -n "$1" ]; then
    printf '# by vmwright: the proxy of the cloud\\nPROXY_ENABLED="yes"\\n' >> "$new"
    printf 'HTTP_PROXY="%s"\\nHTTPS_PROXY="%s"\\n' "$1" "$1" >> "$new"
else
    printf 'PROXY_ENABLED="no"\\nHTTP_PROXY=""\\nHTTPS_PROXY=""\\n' >> "$new"
fi
cmp -s "$new" "$file" || cat "$new" > "$file"
rm -f "$new"
"""

# Who may log in. $1: the instance, $2: one "USER KEY" a line. cloud-init adds keys and sudo rules, but never takes any
# away: what we gave before and no longer give is taken away here, before cloud-init gives again. Keys that were put
# there inside the guest stay.
ACCESS = f"""\
umask 077; state={STATE}; mkdir -p "$state"
[ "$(cat "$state/access.instance" 2>/dev/null)" = "$1" ] && exit 0
printf '%s\\n' "$2" > "$state/access.new"
if [ -f "$state/access" ]; then
    rm -f /etc/sudoers.d/90-cloud-init-users
    grep -vxFf "$state/access.new" "$state/access" | while read -r user key; do
        file="$(getent passwd "$user" | cut -d: -f6)/.ssh/authorized_keys"
        [ -n "$key" ] && [ -f "$file" ] || continue
        grep -vxF -e "$key" "$file" > "$state/keep"
        cat "$state/keep" > "$file"
    done
    rm -f "$state/keep"
fi
mv "$state/access.new" "$state/access"
printf '%s' "$1" > "$state/access.instance"
"""

# The agent must be free to run commands: distributions of the RHEL family forbid it in the agent's settings, and
# confine it by SELinux. The host owns the guest's disks and memory, so this gives it nothing it does not have.
# The names of the settings: EL 8, EL 9, EL 9.4 and later with Fedora; openSUSE has its defaults under /usr/etc.
FREE_AGENT = f"""\
file=/etc/sysconfig/qemu-ga; changed=
names='BLACKLIST_RPC|BLOCK_RPCS|FILTER_RPC_ARGS'
if [ -f "$file" ] && grep -Eq "^($names)=.*[a-z]" "$file"; then
    sed -i -E "s/^($names)=.*/\\\\1=/" "$file"; changed=1
fi
if grep -Eqs "^($names)=.*[a-z]" /usr/etc/sysconfig/qemu-ga && ! grep -Eqs "^($names)=" "$file"; then
    mkdir -p /etc/sysconfig; sed -n -E "s/^($names)=.*/\\\\1=/p" /usr/etc/sysconfig/qemu-ga >> "$file"; changed=1
fi
mark={STATE}/agent-unconfined
if [ ! -e "$mark" ] && command -v semodule >/dev/null 2>&1 && selinuxenabled 2>/dev/null; then
    mkdir -p {STATE}
    printf '(typepermissive virt_qemu_ga_t)\\n' > /run/vmwright_agent.cil
    semodule -i /run/vmwright_agent.cil && : > "$mark"
    rm -f /run/vmwright_agent.cil
fi
[ -z "$changed" ] || systemctl --no-block try-restart qemu-guest-agent.service
exit 0
"""

START_AGENT = """\
systemctl enable qemu-guest-agent.service 2>/dev/null
systemctl start qemu-guest-agent.service
"""

# $1: the disk, $2: the file system. Made only on a disk that is empty beyond doubt: nothing blkid knows, and zeros.
FORMAT = """\
[ -b "$1" ] || { echo "vmwright: $1 is not there" >&2; exit 0; }
blkid -p "$1" >/dev/null 2>&1; [ $? -eq 2 ] || exit 0
cmp -s -n 1048576 "$1" /dev/zero || { echo "vmwright: $1 holds data: no file system made" >&2; exit 0; }
command -v "mkfs.$2" >/dev/null 2>&1 || { echo "vmwright: no mkfs.$2 yet" >&2; exit 0; }
case "$2" in
    ext4) mkfs.ext4 -q -F "$1" ;;
    *) "mkfs.$2" -q "$1" ;;
esac
"""

# $1: the command a file system needs, $2: the package that has it. For what must be there after cloud-init's packages.
NEED = """\
command -v "$1" >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -y install "$2" || { apt-get -q update && apt-get -q -y install "$2"; }
elif command -v dnf >/dev/null 2>&1; then dnf -q -y install "$2"
elif command -v zypper >/dev/null 2>&1; then zypper -n -q install "$2"
fi
"""

# $1: where a data disk is mounted. /etc/fstab has the line already.
MOUNT = """\
mountpoint -q "$1" || { mkdir -p "$1" && mount "$1"; }
"""

# $1: a name for the text, $2: the file it belongs to, $3: mode, $4: owner. The text stands in STATE/append/NAME.
APPEND = f"""\
cd {STATE}/append || exit 1
[ -e "$1.done" ] && exit 0
if [ ! -e "$2" ]; then
    mkdir -p "$(dirname "$2")" && : > "$2" && chmod "$3" "$2" && chown "$4" "$2" || exit 1
fi
cat "$1" >> "$2" && : > "$1.done"
"""

# cloud-init puts all of runcmd into one script: this line ends it when these very commands have run before. `{mark}` is
# a path without any special character.
ONCE = "[ -e {mark} ] && exit 0; mkdir -p {state} && : > {mark}"
