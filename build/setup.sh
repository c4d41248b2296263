#!/bin/sh
# Makes a clone ready: npm's packages, and the Debian packages that the named groups need.
# It says what it is going to install before it does so, and is silent when all is there (then it needs no network).
# Usage: sh build/setup.sh [demo|test]...
set -eu
cd "$(dirname "$0")/.."

# What builds and boots the image of the demo.
demo='busybox-static cpio dosfstools e2fsprogs genisoimage mtools qemu-system-x86 qemu-utils syslinux syslinux-common'

# Image formats and file systems; the story runner; fault injection; a libvirt to talk to, with UEFI and TPMs for its
# guests; ssh between two hosts of the lab; Glance and Keystone (the programs alone: glance-api and keystone would also
# make them services of this host); shells to complete in.
test="$demo
  bzip2 gzip ntfs-3g rsync util-linux xfsprogs xorriso xz-utils zstd
  patch python3-cram
  curl hyperfine iproute2 jq python3 strace
  libvirt-clients libvirt-daemon-driver-qemu libvirt-daemon-system
  ovmf swtpm swtpm-tools
  openssh-client openssh-server procps
  openssl python3-glance python3-keystone
  fish zsh"

say() { printf 'setup: %s\n' "$*"; }
stop() {
  printf 'setup: %s\n' "$1" >&2
  printf '  remedy: %s\n' "$2" >&2
  exit 1
}

wanted=
for group; do
  case $group in
    demo) wanted="$wanted $demo" ;;
    test) wanted="$wanted $test" ;;
    *) stop "There is no group \"$group\"" 'sh build/setup.sh [demo|test]...' ;;
  esac
done

# Prints those of the packages that are not installed.
missing() {
  # dpkg-query fails when it does not know one of them; what it knows it prints all the same.
  installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || :)
  for package; do
    printf '%s\n' "$installed" | grep -qxF "$package installed" || printf '%s ' "$package"
  done
}

if [ -n "$wanted" ]; then
  # shellcheck disable=SC2086 # names without blanks, to be split
  if command -v dpkg-query >/dev/null; then
    absent=$(missing $wanted)
  else
    stop 'Cannot install packages: this is not a Debian system' "install what corresponds to:$(printf ' %s' $wanted)"
  fi
  absent=${absent% }
  if [ -n "$absent" ]; then
    install="apt-get install -y --no-install-recommends $absent"
    if [ "$(id -u)" = 0 ]; then
      as_root=
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
      as_root=sudo
    else
      command -v sudo >/dev/null && become='sudo sh -c' || become='su -c'
      stop "Debian packages are missing, and only root may install them: $absent" \
        "$become 'apt-get update && $install'"
    fi
    say "Debian packages are missing: $absent"
    case " $absent" in
      *' libvirt-daemon-system'*) 
        say 'On a host that runs systemd, libvirt-daemon-system starts its services (libvirtd, virtlogd).' ;;
    esac
    case " $absent" in
      *' python3-glance'*)
        say 'On a host that runs systemd, open-iscsi, which python3-glance needs, makes it listen for iscsid.' ;;
    esac
    case " $absent" in
      *' openssh-server'*)
        # Tests start an sshd of their own, in a network of their own. Nobody asked for one of this host.
        if [ -d /run/systemd/system ]; then
          say 'openssh-server would make this host listen on port 22. Before it comes, that is switched off by:'
          say '  systemctl mask ssh.service ssh.socket    (unmask, where you do want it)'
          $as_root systemctl mask ssh.service ssh.socket
        fi ;;
    esac
    say "They are installed now by: ${as_root:+$as_root }$install"
    apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120"
    # One unreachable source does not matter as long as the others have the packages.
    $apt update || say 'Not every package list could be fetched; going on with those that are here.'
    # shellcheck disable=SC2086
    $apt install -y --no-install-recommends $absent || stop 'The packages could not be installed' "${as_root:+$as_root }$install"
  fi
fi

# npm writes this file last: it is there, and newer than the lock file, when the packages are whole.
mark=node_modules/.package-lock.json
if [ ! -e "$mark" ] || [ -n "$(find package-lock.json -newer "$mark")" ]; then
  command -v npm >/dev/null || stop 'npm is missing' 'install Node.js 20 or later, with npm'
  node -e 'process.exit(Number.parseInt(process.versions.node) < 20 ? 1 : 0)' ||
    stop "Node.js $(node --version) is too old" 'install Node.js 20 or later'
  say 'npm packages are missing; they are installed now, into node_modules, by: npm ci'
  npm ci --no-audit --no-fund || stop 'The npm packages could not be installed' 'npm ci'
fi
