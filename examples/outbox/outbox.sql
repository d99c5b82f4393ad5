-- Reads the outbox of the order service, and publishes every order to the topic `placed-orders` once.

CREATE STREAM orders (
  id        STRING PRIMARY KEY METADATA FROM 'id',
  order_id  STRING METADATA FROM 'aggregateid',
  event     STRING METADATA FROM 'type',
  placed_at TIMESTAMP METADATA FROM 'timestamp',
  country   STRING,
  amount    DECIMAL(12,2)
) WITH (
  event_time = 'placed_at',
  source = 'postgres', connection = 'shop', outbox = 'outbox'
);

CREATE VIEW placed_orders AS
SELECT order_id, country, COUNT(*) AS events, SUM(amount) AS amount
FROM orders
WHERE event = 'placed'
GROUP BY order_id, country;

CREATE SINK placed_orders_out FROM VIEW placed_orders
WITH (connection = 'main', topic = 'placed-orders', every = '100 milliseconds');
