-- Finds users who spend too much: over all time, and on one day. `trueup serve examples/fraud/fraud.sql --config
-- examples/fraud/trueup.toml` serves it; docs/alerts.md explains what happens.

CREATE STREAM transactions (
  id STRING PRIMARY KEY,
  at TIMESTAMP,
  user_id STRING,
  amount DECIMAL(12,2)
) WITH (event_time = 'at', watermark_delay = '1 minute', allowed_lateness = '1 hour');

-- A running total per user: a view without a window.
CREATE VIEW spend AS
SELECT user_id, COUNT(*) AS transactions, SUM(amount) AS total
FROM transactions
GROUP BY user_id;

CREATE VIEW daily_spend AS
SELECT window_start, user_id, COUNT(*) AS transactions, SUM(amount) AS total
FROM transactions
GROUP BY TUMBLE(at, INTERVAL '1' DAY), user_id;

CREATE ALERT high_spend ON spend WHEN total > 10000
WITH (to = 'webhook:ops', once_per = 'user_id');

CREATE ALERT high_daily_spend ON daily_spend WHEN total > 1000
WITH (to = 'webhook:ops');
