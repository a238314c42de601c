#!/bin/sh
# Installs the large counterparts, for the tests marked `large`, about 3 GB in virtual environments beside what install.sh
# installs: LiteLLM Proxy, the ClickHouse engine, Arize Phoenix and MLflow (for their prices), OpenLIT, and what the
# services of integrations/compose stand on.
set -eu

LITELLM=1.106.2
CHDB=4.4.0
PHOENIX=20.26.1
MLFLOW=3.18.0
OPENLIT=1.45.0

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

# Instrumentors that do not stand on today's OpenAI SDK or GenAI utilities. In two steps: for both at once pip looks for
# versions without end. A version is named: without one pip takes an OpenLIT of long ago that fits OpenTelemetry's newest
# by its numbers only, and cannot be imported.
if [ "$(cat "$there/instrumentors-older/.installed" 2>/dev/null)" != "$OPENLIT-both" ]; then
    installed instrumentors-older "$OPENLIT" -e "$here" 'openai<3' opentelemetry-sdk "openlit==$OPENLIT"
    "$there/instrumentors-older/bin/python" -m pip install --quiet --disable-pip-version-check \
        opentelemetry-instrumentation-openai-v2 'opentelemetry-util-genai==0.4b0'
    echo "$OPENLIT-both" >"$there/instrumentors-older/.installed"
fi
installed street 1 -e "$here" -r "$here/integrations/compose/street/requirements.txt"

echo "litellm $LITELLM, Arize Phoenix $PHOENIX, MLflow $MLFLOW, OpenLIT $OPENLIT and the ClickHouse engine (chdb $CHDB) are in $there"
