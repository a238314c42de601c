#!/bin/sh
# Installs the real gateway, collector and database servers that the tests marked `counterpart` start.
# They land in $ATTRIBKIT_COUNTERPARTS, or in .counterparts beside this repository's README. Needs node, npm and python3.
set -eu

PORTKEY=1.15.2
ROTEL=0.0.1a15

here=$(cd "$(dirname "$0")/../.." && pwd)
there=${ATTRIBKIT_COUNTERPARTS:-$here/.counterparts}
mkdir -p "$there"
exec 9>"$there/.lock"
command -v flock >/dev/null 2>&1 && flock 9

if [ "$(cat "$there/portkey/.installed" 2>/dev/null)" != "$PORTKEY" ]; then
    rm -rf "$there/portkey"
    mkdir -p "$there/portkey"
    echo '{"private": true}' >"$there/portkey/package.json"
    npm install --prefix "$there/portkey" --no-audit --no-fund --loglevel=error --ignore-scripts \
        "@portkey-ai/gateway@$PORTKEY"
    echo "$PORTKEY" >"$there/portkey/.installed"
fi

# rotel's wheel is built for one Python and needs its shared library: take the first that this machine can load.
if [ "$(cat "$there/rotel/.installed" 2>/dev/null)" != "$ROTEL" ]; then
    rm -rf "$there/rotel"
    for version in 3.11 3.12 3.13; do
        python3 -c "import ctypes; ctypes.CDLL('libpython$version.so.1.0')" 2>/dev/null || continue
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
            --only-binary=:all: --python-version "$version" --target "$there/rotel" "rotel==$ROTEL" && break
    done
    if [ ! -x "$there/rotel/rotel/rotel-agent" ]; then
        echo "rotel $ROTEL was not installed: no libpython3.11, 3.12 or 3.13 (on Debian: apt-get install libpython3.11)" >&2
        exit 1
    fi
    echo "$ROTEL" >"$there/rotel/.installed"
fi

# The budget stores: Debian's own packages, where they are missing and this user may install them.
packages=""
command -v redis-server >/dev/null 2>&1 || packages="$packages redis-server"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null 2>&1 || packages="$packages postgresql"
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    else
        echo "not installed, and this user may not install it:$packages" >&2
        exit 1
    fi
fi

# Other GenAI instrumentors beside attribkit, in an environment of their own: they pin what they stand on.
if [ ! -x "$there/instrumentors/bin/python" ]; then
    python3 -m venv "$there/instrumentors"
    "$there/instrumentors/bin/python" -m pip install --quiet --disable-pip-version-check \
        -e "$here" openai opentelemetry-sdk openinference-instrumentation-openai opentelemetry-instrumentation-openai \
        opentelemetry-instrumentation-genai-openai langfuse logfire
fi

echo "portkey $PORTKEY, rotel $ROTEL and other instrumentors are in $there"
