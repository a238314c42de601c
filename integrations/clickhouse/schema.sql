-- Two places for what attribkit says: the ledger's rows, and the spans of a collector. Statements end in ";" at the end
-- of a line:  clickhouse-client --multiquery < schema.sql

CREATE DATABASE IF NOT EXISTS attribkit;

CREATE DATABASE IF NOT EXISTS otel;

-- One row for each attempt on the wire, as it stands in the ledger (load.py brings them). A row that is loaded twice is
-- one row once its parts are merged; FINAL reads as if they were. Money is whole pico-dollars: sums are exact.
CREATE TABLE IF NOT EXISTS attribkit.calls
(
    call_id String,
    operation_id String,
    attempt UInt16,
    started_ns Int64,
    duration_ns Nullable(Int64),
    first_chunk_ns Nullable(Int64),
    client LowCardinality(String),
    provider LowCardinality(String),
    gateway LowCardinality(Nullable(String)),
    host LowCardinality(String),
    api LowCardinality(String),
    requested_model LowCardinality(Nullable(String)),
    served_model LowCardinality(Nullable(String)),
    requested_tier LowCardinality(Nullable(String)),
    served_tier LowCardinality(Nullable(String)),
    region LowCardinality(Nullable(String)),
    batch Bool,
    stream Bool,
    status LowCardinality(String),
    http_status Nullable(UInt16),
    error LowCardinality(Nullable(String)),
    response_id Nullable(String),
    gateway_request_id Nullable(String),
    trace_id Nullable(String),
    span_id Nullable(String),
    hop LowCardinality(String),
    tenant_id Nullable(String),
    workflow LowCardinality(Nullable(String)),
    workflow_id Nullable(String),
    feature LowCardinality(Nullable(String)),
    environment LowCardinality(Nullable(String)),
    team LowCardinality(Nullable(String)),
    cost_center LowCardinality(Nullable(String)),
    user_id Nullable(String),
    session_id Nullable(String),
    agent LowCardinality(Nullable(String)),
    tier LowCardinality(Nullable(String)),
    dimensions Nullable(String),
    input_tokens Nullable(Int64),
    output_tokens Nullable(Int64),
    cache_read_tokens Nullable(Int64),
    cache_write_5m_tokens Nullable(Int64),
    cache_write_1h_tokens Nullable(Int64),
    reasoning_tokens Nullable(Int64),
    meters Nullable(String),
    usage_estimated LowCardinality(Nullable(String)),
    usage_problems Nullable(String),
    cost_pico Nullable(Int128),
    list_pico Nullable(Int128),
    stated_pico Nullable(Int128),
    cost_status LowCardinality(String),
    cost_reason LowCardinality(Nullable(String)),
    price_version LowCardinality(String),
    priced_as LowCardinality(Nullable(String)),
    price_date LowCardinality(Nullable(String)),
    cost_lines String,
    charged_pico Nullable(Int128),
    started DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(started_ns, 'UTC'),
    model LowCardinality(Nullable(String)) ALIAS coalesce(served_model, requested_model),
    cost_usd Nullable(Decimal(38, 12)) ALIAS toDecimal128(cost_pico, 12) / 1000000000000
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(fromUnixTimestamp64Nano(started_ns, 'UTC'))
ORDER BY (ifNull(tenant_id, ''), started_ns, call_id);

-- The names of FOCUS 1.4 over the same rows, by hour, tenant, seller, model and workflow. Unpriced calls are not in it.
CREATE VIEW IF NOT EXISTS attribkit.focus AS
SELECT
    toStartOfMonth(started) AS BillingPeriodStart,
    addMonths(toStartOfMonth(started), 1) AS BillingPeriodEnd,
    toStartOfHour(started) AS ChargePeriodStart,
    addHours(toStartOfHour(started), 1) AS ChargePeriodEnd,
    'Usage' AS ChargeCategory,
    'Usage-Based' AS ChargeFrequency,
    concat(assumeNotNull(ifNull(model, 'unknown')), ' ', api) AS ChargeDescription,
    'USD' AS BillingCurrency,
    toDecimal128(sum(charged_pico), 12) / 1000000000000 AS BilledCost,
    toDecimal128(sum(charged_pico), 12) / 1000000000000 AS EffectiveCost,
    toDecimal128(sum(cost_pico), 12) / 1000000000000 AS ContractedCost,
    toDecimal128(sum(ifNull(list_pico, cost_pico)), 12) / 1000000000000 AS ListCost,
    provider AS ServiceProviderName,
    'AI and Machine Learning' AS ServiceCategory,
    'Generative AI' AS ServiceSubcategory,
    api AS ServiceName,
    model AS ResourceId,
    region AS RegionId,
    tenant_id AS SubAccountId,
    toJSONString(map('workflow', ifNull(workflow, ''), 'feature', ifNull(feature, ''), 'environment', ifNull(environment, ''), 'cost_center', ifNull(cost_center, ''))) AS Tags,
    sum(input_tokens) AS x_InputTokens,
    sum(output_tokens) AS x_OutputTokens,
    uniqExact(operation_id) AS x_Calls
FROM attribkit.calls FINAL
WHERE cost_pico IS NOT NULL
GROUP BY toStartOfMonth(started), toStartOfHour(started), provider, api, model, region, tenant_id, workflow, feature, environment, cost_center;

-- The table that the exporters of the OpenTelemetry Collector and of rotel write to, with three columns of our own, which
-- they need not know. Set create_schema: false there, and let this be the table.
CREATE TABLE IF NOT EXISTS otel.otel_traces
(
    Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    ParentSpanId String CODEC(ZSTD(1)),
    TraceState String CODEC(ZSTD(1)),
    SpanName LowCardinality(String) CODEC(ZSTD(1)),
    SpanKind LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    Duration UInt64 CODEC(ZSTD(1)),
    StatusCode LowCardinality(String) CODEC(ZSTD(1)),
    StatusMessage String CODEC(ZSTD(1)),
    `Events.Timestamp` Array(DateTime64(9)) CODEC(ZSTD(1)),
    `Events.Name` Array(LowCardinality(String)) CODEC(ZSTD(1)),
    `Events.Attributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Links.TraceId` Array(String) CODEC(ZSTD(1)),
    `Links.SpanId` Array(String) CODEC(ZSTD(1)),
    `Links.TraceState` Array(String) CODEC(ZSTD(1)),
    `Links.Attributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    TenantId LowCardinality(String) MATERIALIZED SpanAttributes['attribkit.tenant_id'],
    CallId String MATERIALIZED SpanAttributes['attribkit.call.id'],
    CostUsd Nullable(Decimal(38, 12)) MATERIALIZED toDecimal128OrNull(SpanAttributes['attribkit.cost.usd'], 12),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_tenant_id TenantId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
TTL toDateTime(Timestamp) + INTERVAL 30 DAY;

-- Spans with the tenant they belong to: their own, or, where they name none (a gateway's inner steps), the one of their
-- trace, if it has exactly one. In a trace of several tenants such a span stays nobody's.
CREATE VIEW IF NOT EXISTS otel.attributed_spans AS
SELECT
    spans.*,
    spans.TenantId AS TenantId,
    spans.CallId AS CallId,
    spans.CostUsd AS CostUsd,
    if(spans.TenantId != '', spans.TenantId, traces.OnlyTenant) AS Tenant
FROM otel.otel_traces AS spans
LEFT JOIN
(
    SELECT TraceId, if(uniqExactIf(TenantId, TenantId != '') = 1, anyIf(TenantId, TenantId != ''), '') AS OnlyTenant
    FROM otel.otel_traces
    GROUP BY TraceId
) AS traces ON traces.TraceId = spans.TraceId;

-- Spend by tenant and hour from the spans, kept up while they come in: a dashboard reads this and not the spans.
CREATE TABLE IF NOT EXISTS otel.spend_by_tenant
(
    Hour DateTime('UTC'),
    Tenant LowCardinality(String),
    Workflow LowCardinality(String),
    Model LowCardinality(String),
    Calls UInt64,
    UnpricedCalls UInt64,
    CostUsd Decimal(38, 12),
    InputTokens UInt64,
    OutputTokens UInt64
)
ENGINE = SummingMergeTree
ORDER BY (Tenant, Hour, Workflow, Model);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.spend_by_tenant_view TO otel.spend_by_tenant AS
SELECT
    toStartOfHour(toDateTime(Timestamp, 'UTC')) AS Hour,
    SpanAttributes['attribkit.tenant_id'] AS Tenant,
    SpanAttributes['attribkit.workflow'] AS Workflow,
    if(SpanAttributes['gen_ai.response.model'] != '', SpanAttributes['gen_ai.response.model'], SpanAttributes['gen_ai.request.model']) AS Model,
    count() AS Calls,
    countIf(SpanAttributes['attribkit.cost.status'] = 'unpriced') AS UnpricedCalls,
    sum(ifNull(toDecimal128OrNull(SpanAttributes['attribkit.cost.usd'], 12), toDecimal128(0, 12))) AS CostUsd,
    sum(toUInt64OrZero(SpanAttributes['gen_ai.usage.input_tokens'])) AS InputTokens,
    sum(toUInt64OrZero(SpanAttributes['gen_ai.usage.output_tokens'])) AS OutputTokens
FROM otel.otel_traces
WHERE SpanAttributes['attribkit.call.id'] != ''
GROUP BY Hour, Tenant, Workflow, Model;
