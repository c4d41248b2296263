# Sourced by a story of two hosts, in place of setup.sh: it is played on `alpha`, and `beta` is on the same wire
# (test/lab/pair.ts). Both have libvirt, sshd and cowhand with the settings in /etc/cowhand/cowhand.yaml.
# shellcheck shell=bash
. "$TESTDIR/setup.sh"
unset COWHAND_INSTANCES COWHAND_STORE
host=nobody # their names are the story's own
instances=/var/lib/cowhand/instances

# A command on the other host, as the operator runs it there.
beta() { ssh -o BatchMode=yes beta "$@"; }
