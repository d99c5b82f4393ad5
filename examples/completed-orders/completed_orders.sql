-- Counts completed orders per product and five minutes, from topic to topic. README.md has the same program for Kafka Streams.

CREATE STREAM orders (
  order_id  STRING,
  product   STRING,
  status    STRING,
  placed_at TIMESTAMP
) WITH (
  event_time = 'placed_at',
  watermark_delay = '1 minute',       -- the grace period: a window closes one minute after its end
  source = 'kafka', connection = 'main', topic = 'orders', format = 'json'
);

CREATE VIEW completed_orders AS
SELECT window_start, window_end, UPPER(product) AS product, COUNT(*) AS orders
FROM orders
WHERE status = 'COMPLETED'
GROUP BY TUMBLE(placed_at, INTERVAL '5' MINUTE), UPPER(product);

CREATE SINK completed_orders_out FROM VIEW completed_orders
WITH (connection = 'main', topic = 'completed-orders-per-5-minutes', emit = 'final');
