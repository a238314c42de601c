#!/bin/sh
# Installs the large counterparts, for the tests marked `large`: LiteLLM Proxy, the ClickHouse engine, Arize Phoenix and
# MLflow (for their prices), and what the services of integrations/compose stand on: about 3 GB, in virtual environments
# beside what install.sh installs.
set -eu

LITELLM=1.106.2
CHDB=4.4.0
PHOENIX=20.26.1
MLFLOW=3.18.0

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
# Of MLflow the package itself, on what its small edition needs: its prices need no more.
if [ "$(cat "$there/oracles/.installed" 2>/dev/null)" != "$PHOENIX-$MLFLOW" ]; then
    installed oracles "$PHOENIX" "arize-phoenix==$PHOENIX" mlflow-skinny
    "$there/oracles/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "mlflow==$MLFLOW"
    echo "$PHOENIX-$MLFLOW" >"$there/oracles/.installed"
fi

# What the services of integrations/compose stand on.
if [ ! -x "$there/street/bin/uvicorn" ]; then
    python3 -m venv "$there/street"
    "$there/street/bin/python" -m pip install --quiet --disable-pip-version-check \
        -e "$here" -r "$here/integrations/compose/street/requirements.txt"
fi

echo "litellm $LITELLM, Arize Phoenix $PHOENIX, MLflow $MLFLOW and the ClickHouse engine (chdb $CHDB) are in $there"
