CREATE TABLE attribkit_budgets (name text PRIMARY KEY, definition text NOT NULL, origin text NOT NULL);

CREATE TABLE attribkit_budget_version (version bigint NOT NULL);

INSERT INTO attribkit_budget_version VALUES (0);

CREATE TABLE attribkit_budget_counters (
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    id text PRIMARY KEY,
    budget text NOT NULL,
    key text NOT NULL,
    "window" text NOT NULL,
    unit text NOT NULL,
    start bigint NOT NULL,
    "end" bigint,
    slice integer NOT NULL,
    length integer NOT NULL,
    spent numeric(30) NOT NULL DEFAULT 0,
    reserved numeric(30) NOT NULL DEFAULT 0,
    extra numeric(30) NOT NULL DEFAULT 0,
    lent numeric(30) NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE INDEX attribkit_budget_counters_by_budget ON attribkit_budget_counters (budget);

CREATE TABLE attribkit_budget_holders (
    id text PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    born text NOT NULL,
    expires double precision NOT NULL
);

CREATE TABLE attribkit_budget_holds (
    holder text NOT NULL,
    counter bigint NOT NULL,
    held numeric(30) NOT NULL,
    share numeric(30) NOT NULL,
    flushed numeric(30) NOT NULL,
    PRIMARY KEY (holder, counter)
) WITH (fillfactor = 50);

CREATE TABLE attribkit_budget_slices (
    counter bigint NOT NULL,
    start bigint NOT NULL,
    spent numeric(30) NOT NULL,
    PRIMARY KEY (counter, start)
);

CREATE TABLE attribkit_budget_entries (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at double precision NOT NULL,
    budget text NOT NULL,
    key text NOT NULL,
    amount numeric(30) NOT NULL,
    note text NOT NULL
);

CREATE TYPE attribkit_budget_row AS (
    number bigint,
    slice integer,
    spent numeric,
    reserved numeric,
    extra numeric,
    lent numeric,
    held numeric,
    share numeric,
    flushed numeric,
    late numeric,
    lend numeric
);

-- Exchanges of one holder, one after the other, each as store.decide() has it. p_counters: the counters in the order of
-- their ids, so that rows are locked in one order everywhere. p_asked: for each exchange its moves, each with the place
-- of its counter first. Every counter is read and written once.
CREATE FUNCTION attribkit_budget_exchange(p_holder text, p_now double precision, p_counters jsonb, p_asked jsonb)
RETURNS jsonb
LANGUAGE plpgsql AS $body$
DECLARE
    last integer := jsonb_array_length(p_counters) - 1;
    rows attribkit_budget_row[];
    one attribkit_budget_row;
    given jsonb;
    moves jsonb;
    move jsonb;
    n integer;
    refused integer;
    amount numeric;
    states jsonb;
    answers jsonb := '[]';
BEGIN
    FOR n IN 0 .. last LOOP
        given := p_counters -> n;
        SELECT c.number, c.slice, c.spent, c.reserved, c.extra, c.lent, 0, 0, 0, 0, 0 INTO one
            FROM attribkit_budget_counters c WHERE c.id = given ->> 0 FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO attribkit_budget_counters (id, budget, key, "window", unit, start, "end", slice, length)
                VALUES (given ->> 0, given ->> 1, given ->> 2, given ->> 3, given ->> 4,
                    (given ->> 5)::bigint, (given ->> 6)::bigint, (given ->> 7)::integer,
                    (given ->> 8)::integer)
                ON CONFLICT (id) DO NOTHING;
            SELECT c.number, c.slice, c.spent, c.reserved, c.extra, c.lent, 0, 0, 0, 0, 0 INTO one
                FROM attribkit_budget_counters c WHERE c.id = given ->> 0 FOR UPDATE;
        END IF;
        SELECT h.held, h.share, h.flushed INTO one.held, one.share, one.flushed
            FROM attribkit_budget_holds h WHERE h.holder = p_holder AND h.counter = one.number;
        IF NOT FOUND THEN
            one.held := 0;
            one.share := 0;
            one.flushed := 0;
        END IF;
        IF one.slice > 0 THEN
            WITH old AS (
                DELETE FROM attribkit_budget_slices s WHERE s.counter = one.number
                    AND s.start + one.slice + (given ->> 8)::integer <= p_now RETURNING s.spent
            )
            SELECT coalesce(sum(old.spent), 0) INTO amount FROM old;
            one.spent := one.spent - amount;
        END IF;
        rows[n] := one;
    END LOOP;
    FOR asked IN 0 .. jsonb_array_length(p_asked) - 1 LOOP
        moves := p_asked -> asked;
        refused := -1;
        states := '[]';
        FOR place IN 0 .. jsonb_array_length(moves) - 1 LOOP
            move := moves -> place;
            n := (move ->> 0)::integer;
            one := rows[n];
            amount := (move ->> 2)::numeric - one.flushed;
            IF amount > 0 THEN
                one.late := one.late + amount;
                one.spent := one.spent + amount;
                one.flushed := one.flushed + amount;
            END IF;
            amount := least((move ->> 3)::numeric, one.held);
            one.held := one.held - amount;
            one.reserved := one.reserved - amount;
            amount := least((move ->> 4)::numeric, one.share);
            one.share := one.share - amount;
            one.lent := one.lent - amount;
            amount := (move ->> 5)::numeric;
            IF refused < 0 AND amount > 0 AND (move ->> 1)::numeric >= 0
                AND one.spent + one.reserved + amount > (move ->> 1)::numeric + one.extra THEN
                refused := place;
            END IF;
            rows[n] := one;
        END LOOP;
        FOR place IN 0 .. jsonb_array_length(moves) - 1 LOOP
            move := moves -> place;
            n := (move ->> 0)::integer;
            one := rows[n];
            one.lend := 0;
            amount := (move ->> 5)::numeric;
            IF refused < 0 AND amount > 0 THEN
                one.held := one.held + amount;
                one.reserved := one.reserved + amount;
                amount := (move ->> 6)::numeric;
                IF amount > 0 AND (move ->> 1)::numeric >= 0 AND one.spent + one.reserved + amount
                    + (move ->> 7)::numeric <= (move ->> 1)::numeric + one.extra THEN
                    one.lend := amount;
                    one.held := one.held + amount;
                    one.reserved := one.reserved + amount;
                    one.share := one.share + amount;
                    one.lent := one.lent + amount;
                END IF;
            END IF;
            IF (move ->> 8)::integer = 1 THEN
                one.reserved := one.reserved - one.held;
                one.lent := one.lent - one.share;
                one.held := 0;
                one.share := 0;
                one.flushed := 0;
            END IF;
            rows[n] := one;
            states := states
                || jsonb_build_array(jsonb_build_array(one.spent, one.reserved, one.extra, one.lent, one.lend));
        END LOOP;
        answers := answers || jsonb_build_array(jsonb_build_array(refused) || states);
    END LOOP;
    FOR n IN 0 .. last LOOP
        one := rows[n];
        IF one.held = 0 AND one.share = 0 AND one.flushed = 0 THEN
            DELETE FROM attribkit_budget_holds h WHERE h.holder = p_holder AND h.counter = one.number;
        ELSE
            INSERT INTO attribkit_budget_holds VALUES (p_holder, one.number, one.held, one.share, one.flushed)
                ON CONFLICT (holder, counter) DO UPDATE
                SET held = excluded.held, share = excluded.share, flushed = excluded.flushed;
        END IF;
        UPDATE attribkit_budget_counters c SET spent = one.spent, reserved = one.reserved, lent = one.lent
            WHERE c.number = one.number;
        IF one.slice > 0 AND one.late > 0 THEN
            INSERT INTO attribkit_budget_slices AS s
                VALUES (one.number, floor(p_now / one.slice)::bigint * one.slice, one.late)
                ON CONFLICT (counter, start) DO UPDATE SET spent = s.spent + excluded.spent;
        END IF;
    END LOOP;
    RETURN answers;
END
$body$;

CREATE FUNCTION attribkit_budget_bury(p_holder text, p_settled jsonb, p_now double precision, p_forget boolean)
RETURNS integer
LANGUAGE plpgsql AS $body$
DECLARE
    hold record;
    late numeric;
    freed integer := 0;
BEGIN
    PERFORM c.number FROM attribkit_budget_counters c JOIN attribkit_budget_holds h ON h.counter = c.number
        WHERE h.holder = p_holder ORDER BY c.id COLLATE "C" FOR UPDATE OF c;
    FOR hold IN
        SELECT c.number, c.id, c.slice, h.held, h.share, h.flushed
            FROM attribkit_budget_counters c JOIN attribkit_budget_holds h ON h.counter = c.number
            WHERE h.holder = p_holder
    LOOP
        late := greatest(0, coalesce((p_settled ->> hold.id)::numeric, 0) - hold.flushed);
        UPDATE attribkit_budget_counters c
            SET spent = c.spent + late, reserved = c.reserved - hold.held, lent = c.lent - hold.share
            WHERE c.number = hold.number;
        IF late > 0 AND hold.slice > 0 THEN
            INSERT INTO attribkit_budget_slices AS s
                VALUES (hold.number, floor(p_now / hold.slice)::bigint * hold.slice, late)
                ON CONFLICT (counter, start) DO UPDATE SET spent = s.spent + excluded.spent;
        END IF;
        UPDATE attribkit_budget_holds h SET held = 0, share = 0, flushed = hold.flushed + late
            WHERE h.holder = p_holder AND h.counter = hold.number;
        IF hold.held > 0 THEN
            freed := freed + 1;
        END IF;
    END LOOP;
    IF p_forget THEN
        DELETE FROM attribkit_budget_holds h WHERE h.holder = p_holder;
        DELETE FROM attribkit_budget_holders r WHERE r.id = p_holder;
    ELSE -- once buried, `expires` is the time of that, and negative
        UPDATE attribkit_budget_holders r SET expires = -extract(epoch FROM clock_timestamp())
            WHERE r.id = p_holder AND r.expires > 0;
    END IF;
    RETURN freed;
END
$body$;

CREATE FUNCTION attribkit_budget_prune(p_now double precision, p_grave integer) RETURNS integer
LANGUAGE plpgsql AS $body$
DECLARE
    buried double precision := extract(epoch FROM clock_timestamp()) - p_grave;
    gone bigint[];
BEGIN
    WITH over AS (
        DELETE FROM attribkit_budget_counters c WHERE c.number IN (
            SELECT o.number FROM attribkit_budget_counters o WHERE 3 * o."end" - 2 * o.start + 172800 < p_now
            OR (o.slice > 0 AND o.reserved = 0 AND o.extra = 0
                AND NOT EXISTS (SELECT FROM attribkit_budget_slices s
                    WHERE s.counter = o.number AND s.start + o.length + o.slice > p_now)
                AND NOT EXISTS (SELECT FROM attribkit_budget_holds h JOIN attribkit_budget_holders r ON r.id = h.holder
                    WHERE h.counter = o.number AND (h.held > 0 OR r.expires > 0)))
            ORDER BY o.id COLLATE "C" LIMIT 1000 FOR UPDATE SKIP LOCKED
        ) RETURNING c.number
    )
    SELECT coalesce(array_agg(number), '{}') INTO gone FROM over;
    DELETE FROM attribkit_budget_holds h WHERE h.counter = ANY (gone);
    DELETE FROM attribkit_budget_slices s WHERE s.counter = ANY (gone);
    DELETE FROM attribkit_budget_holds h USING attribkit_budget_holders r
        WHERE r.id = h.holder AND h.held = 0 AND r.expires < 0 AND -r.expires < buried;
    DELETE FROM attribkit_budget_holders r WHERE r.expires < 0 AND -r.expires < buried
        AND NOT EXISTS (SELECT FROM attribkit_budget_holds h WHERE h.holder = r.id);
    RETURN cardinality(gone);
END
$body$;
