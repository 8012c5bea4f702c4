#!/bin/sh
# Starts the VMs of every cloud on this host in the order of the cloud's file. vmwright-autostart.service runs it when
# the host has booted; run by hand it does no harm, as what runs is left alone.
#
# STATE/CLOUD/autostart has a line for each VM: its order (- for none), its name, what those after it wait for (agent,
# or - for its start alone), and for how many seconds at most. The lines of an order stand together, and those VMs start
# side by side; so do clouds, which know nothing of each other. What goes wrong is told in a line, and the rest goes on;
# then this ends with 1. It needs virsh and timeout(1), and no more: a host may have no Python.
set -u
export LC_ALL=C

state=${1:-/var/lib/vmwright}
parallel=8         # starts at once
again=5            # seconds until a start that failed is tried once more: a bridge or a disk may come late
start_limit=600    # seconds for one start: with a device passed through, all its memory is pinned before it begins
look_limit=30
libvirt_limit=600
newline='
'

say() { printf '%s: %s\n' "$cloud" "$*"; }
complain() { printf '<3>%s: %s\n' "$cloud" "$*"; }    # the journal reads <3> as "error": sd-daemon(3)

# Seconds since the host has booted: the clock may jump while it boots.
now() {
    read -r up _ </proc/uptime
    echo "${up%%.*}"
}

# libvirt SECONDS COMMAND...: virsh, ended when it does not end by itself.
libvirt() {
    limit=$1
    shift
    timeout -k 5 "$limit" virsh -q -c qemu:///system "$@" </dev/null 2>&1
}

# What virsh said, on one line. Nothing at all is what timeout(1) leaves.
words() {
    line=$(printf '%s\n' "$1" | sed -e 's/^error: //' | tr '\n' ' ')
    line=${line% }
    echo "${line:-libvirt does not answer}"
}

# "running (booted)", or what virsh said instead.
state_of() { words "$(libvirt "$look_limit" domstate --reason "$1")"; }

await_libvirt() {
    until=$(($(now) + libvirt_limit))
    while ! said=$(libvirt "$look_limit" list --name); do
        if [ "$(now)" -ge "$until" ]; then
            complain "no VM is started: $(words "$said")"
            return 1
        fi
        sleep 2
    done
    # Where pools and networks have daemons of their own, a look wakes these, and they start what is to start at boot.
    libvirt "$start_limit" pool-list --name >/dev/null
    libvirt "$start_limit" net-list --name >/dev/null
    return 0
}

start_vm() {
    found=$(state_of "$1")
    case $found in
    running* | idle*)
        say "$1 runs already"
        return 0
        ;;
    "shut off"* | crashed*) ;;
    "failed to get domain"*)
        complain "$1 is not started: there is no such VM"
        return 1
        ;;
    *)
        complain "$1 is not started: $found"
        return 1
        ;;
    esac
    for pause in "$again" ""; do
        if said=$(libvirt "$start_limit" start "$1"); then
            say "$1 is started"
            return 0
        fi
        [ -z "$pause" ] || sleep "$pause"
    done
    complain "$1 does not start: $(words "$said")"
    return 1
}

# await_agent NAME SECONDS PAUSE: until its guest agent answers, the time is up, or it cannot answer any more.
await_agent() {
    begun=$(now)
    while :; do
        found=$(state_of "$1")
        case $found in
        running* | idle*)
            if said=$(libvirt "$look_limit" qemu-agent-command --timeout 5 "$1" '{"execute": "guest-ping"}'); then
                say "$1 answers after $(($(now) - begun)) s"
                return 0
            fi
            found=$(words "$said")
            ;;
        paused* | pmsuspended* | "shut off"* | crashed* | "failed to get domain"*)
            complain "$1 is not waited for any longer, and the others go on without it: $found"
            return 1
            ;;
        esac
        spent=$(($(now) - begun))
        if [ "$spent" -ge "$2" ]; then
            complain "$1 has not answered for $2 s, and the others go on without it: $found"
            return 1
        fi
        left=$(($2 - spent))
        sleep "$((left < $3 ? left : $3))"
    done
}

# Reads lines "PID NAME HEALTH SECONDS" and waits for these processes. Leaves the lines of those that went well, and are
# to be waited for, in $waiting; remembers in $failed that one did not.
collect() {
    while read -r pid name health seconds; do
        if ! wait "$pid"; then
            failed=1
        elif [ "$health" != - ]; then
            waiting="$waiting$name $seconds$newline"
        fi
    done
}

# Starts the VMs of the lines "NAME HEALTH SECONDS" in $rows, so many at once.
start_all() {
    batch='' count=0
    while read -r name health seconds; do
        start_vm "$name" &
        batch="$batch$! $name $health $seconds$newline" count=$((count + 1))
        if [ $((count % parallel)) = 0 ]; then
            collect <<END
${batch%"$newline"}
END
            batch=
        fi
    done <<END
${rows%"$newline"}
END
    [ -z "$batch" ] || collect <<END
${batch%"$newline"}
END
}

# Waits for the VMs of the lines "NAME SECONDS" in $waiting. The more they are, the less often each is asked.
await_all() {
    pids='' pause=$((2 + $(printf '%s' "$waiting" | wc -l) / 10))
    while read -r name seconds; do
        await_agent "$name" "$seconds" "$pause" &
        pids="$pids $!"
    done <<END
${waiting%"$newline"}
END
    for pid in $pids; do
        wait "$pid" || failed=1
    done
}

# start_order ORDER: the VMs of the lines in $rows. In a subshell, so that its variables are its own.
start_order() (
    case $1 in -) title="those without an order" ;; *) title="order $1" ;; esac
    say "$title:$(printf '%s' "$rows" | cut -d ' ' -f 1 | sed 's/^/ /' | tr -d '\n')"
    waiting='' failed=0
    start_all
    [ -z "$waiting" ] || await_all
    exit "$failed"
)

# The list of a cloud: DIR/CLOUD/autostart.
start_cloud() {
    folder=${1%/*} failed=0 rows='' current='' order=''
    cloud=${folder##*/}
    await_libvirt || return 1
    while read -r order name health seconds more || [ -n "$order" ]; do
        case $order in '#'* | '') continue ;; esac
        if ! is_row "$order" "$name" "$health" "$seconds" "$more"; then
            complain "a line of $1 is not understood, and left out: $order $name $health $seconds $more"
            failed=1
            continue
        fi
        if [ "$order" != "$current" ]; then
            [ -z "$rows" ] || start_order "$current" || failed=1
            rows='' current=$order
        fi
        rows="$rows$name $health $seconds$newline"
    done <"$1"
    [ -z "$rows" ] || start_order "$current" || failed=1
    return "$failed"
}

is_row() {
    case $1 in -) ;; '' | *[!0-9]*) return 1 ;; esac
    case $2 in '' | -* | *[!a-z0-9-]*) return 1 ;; esac
    case $3 in - | agent) ;; *) return 1 ;; esac
    case $4 in '' | *[!0-9]*) return 1 ;; esac
    [ -z "$5" ]
}

pids=
for list in "$state"/*/autostart; do
    [ -f "$list" ] || continue
    start_cloud "$list" &
    pids="$pids $!"
done
code=0
for pid in $pids; do
    wait "$pid" || code=1
done
exit "$code"
