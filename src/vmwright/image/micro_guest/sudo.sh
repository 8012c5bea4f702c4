#!/bin/sh
# sudo for those who may use it: they have root's number already.
while :; do
    case $1 in
    -[a-zA-Z] | --) shift ;;
    *) break ;;
    esac
done
[ "$(id -u)" = 0 ] || {
    echo "sudo: the micro guest lets only those users be root whom the file gives sudo" >&2
    exit 1
}
exec "$@"
