-- Whole numbers are added up in two halves of nine digits, so that no sum leaves 64 bits.
SELECT
    count(DISTINCT operation_id),
    count(*),
    sum({cost} / 1000000000), sum({cost} % 1000000000),
    count(DISTINCT CASE WHEN {status} = 'unpriced' THEN operation_id END),
    count(DISTINCT CASE WHEN {status} = 'estimated' THEN operation_id END),
    sum(input_tokens / 1000000000), sum(input_tokens % 1000000000),
    sum(output_tokens / 1000000000), sum(output_tokens % 1000000000),
    sum({list} / 1000000000), sum({list} % 1000000000),
    sum({charged} / 1000000000), sum({charged} % 1000000000)
    {keys}
FROM attribkit_calls {figures}
WHERE {conditions}
{grouping}
