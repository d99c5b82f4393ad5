-- Counts and adds up the orders of each user per minute of event time, from topic to topic. README.md has the same program for
-- Flink.

CREATE STREAM orders (
  order_id   STRING,
  user_id    STRING,
  amount     DECIMAL(12,2),
  event_time TIMESTAMP
) WITH (
  event_time = 'event_time',
  watermark_delay = '20 seconds',     -- forBoundedOutOfOrderness
  allowed_lateness = '1 minute',      -- allowedLateness
  source = 'kafka', connection = 'main', topic = 'orders', format = 'json'
);

CREATE VIEW order_aggregates AS
SELECT window_start, window_end, user_id, COUNT(*) AS orders, SUM(amount) AS amount
FROM orders
GROUP BY TUMBLE(event_time, INTERVAL '1' MINUTE), user_id;

CREATE SINK order_aggregates_out FROM VIEW order_aggregates
WITH (connection = 'main', topic = 'order-aggregates', emit = 'final', every = '100 milliseconds');
