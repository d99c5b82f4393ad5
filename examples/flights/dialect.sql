-- Every window and every measure of the dialect, over real flights. Try it:
--
--   trueup check examples/flights/dialect.sql
--   trueup verify examples/flights/dialect.sql --stream flights --events examples/flights/flights.parquet
--
-- docs/dialect.md explains each, docs/accuracy.md the errors of estimates.

CREATE STREAM flights (
  flight_id STRING PRIMARY KEY,
  scheduled_at TIMESTAMP, reported_at TIMESTAMP,
  origin STRING, destination STRING, delay_min BIGINT, distance_mi BIGINT
) WITH (event_time = 'scheduled_at', watermark_delay = '1 hour', allowed_lateness = '4 hours');

-- Tumbling hours: every measure. Groups are small enough to be exact in the speed layer as well.
CREATE VIEW hourly AS
SELECT window_start, window_end, origin,
       COUNT(*)                                                   AS flights,
       COUNT(DISTINCT destination)                                AS destinations,
       PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY delay_min)    AS p95_delay,
       PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY delay_min)     AS median_delay,
       STDDEV_SAMP(delay_min)                                     AS delay_spread,
       TOP_K(destination, 3)                                      AS busiest,
       FIRST_VALUE(flight_id)                                     AS first_flight,
       LAST_VALUE(destination) FILTER (WHERE delay_min > 15)      AS last_late_destination
FROM flights
GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;

-- Calendar days in New York, 23 or 25 hours long twice a year. Large groups: estimates with bounds until batch has run.
CREATE VIEW daily WITH (time_zone = 'America/New_York') AS
SELECT window_start, window_end,
       COUNT(*)                                                   AS flights,
       COUNT(DISTINCT flight_id)                                  AS distinct_flights,
       COUNT(DISTINCT origin)                                     AS origins,
       MEDIAN(delay_min)                                          AS median_delay,
       PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY distance_mi)  AS p99_distance,
       TOP_K(origin, 5)                                           AS busiest,
       VAR_POP(distance_mi)                                       AS distance_variance,
       SUM(distance_mi) / COUNT(DISTINCT origin)                  AS miles_per_origin
FROM flights
GROUP BY TUMBLE(scheduled_at, INTERVAL '1' DAY);

-- The last six hours, every hour. An event is folded once, however many windows cover it.
CREATE VIEW six_hours AS
SELECT window_start, window_end, origin,
       COUNT(*)                                                   AS flights,
       COUNT(DISTINCT destination)                                AS destinations,
       AVG(delay_min)                                             AS avg_delay,
       PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY delay_min)     AS p90_delay
FROM flights
GROUP BY HOP(scheduled_at, INTERVAL '1' HOUR, INTERVAL '6' HOUR), origin
HAVING COUNT(*) >= 10;

-- The running totals of each day in New York, hour by hour.
CREATE VIEW day_so_far WITH (time_zone = 'America/New_York') AS
SELECT window_start, window_end, origin,
       COUNT(*)                                                   AS flights,
       COUNT(DISTINCT destination)                                AS destinations,
       STDDEV_POP(delay_min)                                      AS delay_spread
FROM flights
WHERE distance_mi > 1000
GROUP BY CUMULATE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' DAY), origin;

-- Busy spells of a route: flights less than two hours apart.
CREATE VIEW spells AS
SELECT window_start, window_end, origin, destination,
       COUNT(*)                                                   AS flights,
       FIRST_VALUE(delay_min)                                     AS first_delay,
       LAST_VALUE(delay_min)                                      AS last_delay,
       MAX(delay_min)                                             AS worst_delay
FROM flights
GROUP BY SESSION(scheduled_at, INTERVAL '2' HOUR), origin, destination;

-- The last three hours as of any instant: trueup query last_three_hours --as-of 2001-01-05T17:23:00Z
CREATE VIEW last_three_hours AS
SELECT window_start, window_end, origin,
       COUNT(*)                                                   AS flights,
       AVG(delay_min)                                             AS avg_delay,
       COUNT(DISTINCT destination)                                AS destinations
FROM flights
GROUP BY SLIDE(scheduled_at, INTERVAL '3' HOUR), origin;

-- Months, and a view without a window.
CREATE VIEW monthly AS
SELECT window_start, window_end, origin,
       COUNT(*)                                                   AS flights,
       COUNT(DISTINCT destination)                                AS destinations,
       MEDIAN(delay_min)                                          AS median_delay
FROM flights
GROUP BY TUMBLE(scheduled_at, INTERVAL '1' MONTH), origin;

CREATE VIEW ever AS
SELECT COUNT(*)                                                   AS flights,
       COUNT(DISTINCT flight_id)                                  AS distinct_flights,
       PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY delay_min)     AS median_delay,
       TOP_K(destination, 10)                                     AS busiest,
       LAST_VALUE(origin)                                         AS last_origin
FROM flights;
