#!/usr/bin/env bash
# Sees to the programs that the tests drive: installs what is missing as root on Debian, else names it and fails.
set -euo pipefail

declare -A package=(
    [curl]=curl [h2load]=nghttp2-client [openssl]=openssl [ss]=iproute2 [apache2]=apache2-bin
    [htpasswd]=apache2-utils [logrotate]=logrotate [promtool]=prometheus [systemd-analyze]=systemd
    [nginx]=nginx-light [chromium-headless-shell]=chromium-headless-shell
)
mod_wsgi=/usr/lib/apache2/modules/mod_wsgi.so

# Debian keeps servers where users do not look.
PATH=$PATH:/usr/sbin
missing=()
for tool in "${!package[@]}"; do
    command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ -e "$mod_wsgi" ] || missing+=(libapache2-mod-wsgi-py3)
[ ${#missing[@]} = 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]}"
    # Some come with a service, which nobody here asks for.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
else
    echo "The tests need programs that are not here. Install: ${missing[*]}" >&2
    echo "(Debian: sudo apt-get install ${missing[*]})" >&2
    exit 1
fi
