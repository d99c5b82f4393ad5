-- The order service: an order and its event are written in one transaction.
CREATE TABLE orders (id text PRIMARY KEY, country text NOT NULL, amount numeric(12,2) NOT NULL);
CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, aggregateid text NOT NULL,
                     type text NOT NULL, payload jsonb NOT NULL);
CREATE FUNCTION place_order(id text, country text, amount numeric) RETURNS void LANGUAGE sql AS $$
  INSERT INTO orders VALUES (id, country, amount);
  INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
  VALUES ('order', id, 'placed', jsonb_build_object('country', country, 'amount', amount::numeric(12,2)::text));
$$;
