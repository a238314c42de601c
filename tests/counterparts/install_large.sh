#!/bin/sh
# Installs the large counterparts, for the tests marked `large`: LiteLLM Proxy and the ClickHouse engine, about 1.5 GB,
# each in a virtual environment of its own beside what install.sh installs.
set -eu

LITELLM=1.106.2
CHDB=4.4.0

here=$(cd "$(dirname "$0")/../.." && pwd)
there=${ATTRIBKIT_COUNTERPARTS:-$here/.counterparts}
mkdir -p "$there"
exec 9>"$there/.lock"
command -v flock >/dev/null 2>&1 && flock 9

installed() { # NAME VERSION PACKAGES...: a virtual environment with these packages
    name=$1 version=$2
    shift 2
    [ "$(cat "$there/$name/.installed" 2>/dev/null)" = "$version" ] && return
    rm -rf "$there/$name"
    python3 -m venv "$there/$name"
    "$there/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    echo "$version" >"$there/$name/.installed"
}

installed litellm "$LITELLM" "litellm[proxy]==$LITELLM" opentelemetry-sdk opentelemetry-exporter-otlp
installed clickhouse "$CHDB" "chdb==$CHDB"

echo "litellm $LITELLM and the ClickHouse engine (chdb $CHDB) are in $there"
