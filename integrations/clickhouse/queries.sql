-- Questions by tenant. Each takes the time range that you put into it; a statement ends in ";" at the end of a line.

-- spend_by_tenant: from the ledger's rows, exact
SELECT tenant_id, uniqExact(operation_id) AS calls, count() AS attempts, sum(cost_usd) AS usd, countIf(cost_pico IS NULL) AS unpriced
FROM attribkit.calls FINAL
WHERE started >= now() - INTERVAL 30 DAY
GROUP BY tenant_id
ORDER BY usd DESC NULLS LAST;

-- spend_by_plan: by a free dimension
SELECT JSONExtractString(ifNull(dimensions, '{}'), 'plan') AS plan, sum(cost_usd) AS usd
FROM attribkit.calls FINAL
GROUP BY plan
ORDER BY usd DESC NULLS LAST;

-- spend_by_span: the same spend, from the spans' rollup
SELECT Tenant, sum(Calls) AS calls, sum(CostUsd) AS usd, sum(UnpricedCalls) AS unpriced
FROM otel.spend_by_tenant
WHERE Hour >= now() - INTERVAL 30 DAY
GROUP BY Tenant
ORDER BY usd DESC;

-- unattributed: calls that no tenant owns, and where they come from
SELECT client, api, host, hop, uniqExact(operation_id) AS calls, sum(cost_usd) AS usd
FROM attribkit.calls FINAL
WHERE tenant_id IS NULL
GROUP BY client, api, host, hop
ORDER BY usd DESC NULLS LAST;

-- dearest_workflows: which runs cost most, and in whose name
SELECT tenant_id, workflow, workflow_id, count() AS attempts, sum(cost_usd) AS usd
FROM attribkit.calls FINAL
WHERE workflow_id IS NOT NULL
GROUP BY tenant_id, workflow, workflow_id
ORDER BY usd DESC NULLS LAST
LIMIT 20;

-- where_it_was_lost: spans without a tenant in traces that have one, by service and name
SELECT ServiceName, SpanName, count() AS spans
FROM otel.attributed_spans
WHERE TenantId = '' AND Tenant != ''
GROUP BY ServiceName, SpanName
ORDER BY spans DESC;

-- spans_and_rows: model calls of one without the other
SELECT coalesce(nullIf(spans.CallId, ''), calls.call_id) AS call_id, spans.CallId = '' AS no_span, calls.call_id = '' AS no_row
FROM (SELECT CallId FROM otel.otel_traces WHERE CallId != '') AS spans
FULL OUTER JOIN (SELECT call_id FROM attribkit.calls FINAL) AS calls ON calls.call_id = spans.CallId
WHERE spans.CallId = '' OR calls.call_id = '';
