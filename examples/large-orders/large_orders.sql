-- Copies large orders to another topic, each once and in order: a filter and a map, without windows.

CREATE STREAM orders (
  order_id  STRING PRIMARY KEY,
  customer  STRING,
  country   STRING,
  amount    DECIMAL(12,2),
  placed_at TIMESTAMP
) WITH (
  event_time = 'placed_at',
  source = 'kafka', connection = 'main', topic = 'orders', format = 'json'
);

CREATE SINK large_orders AS
SELECT order_id, customer, UPPER(country) AS country, amount, amount >= 1000 AS needs_review
FROM orders
WHERE amount >= 100
WITH (connection = 'main', topic = 'large-orders');
