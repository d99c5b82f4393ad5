-- Flights: one stream of real events and three views over it.
--
--   trueup check  examples/flights/flights.sql                    the plan of each layer
--   trueup serve  examples/flights/flights.sql
--   trueup ingest flights examples/flights/flights.parquet        245,522 flights of January 2001
--
-- `trueup demo` does all of this at once.

-- A stream is declared like a table. Every event is a JSON object with these fields; a missing field is NULL.
CREATE STREAM flights (
  flight_id     STRING PRIMARY KEY,   -- the event id: duplicates are removed
  scheduled_at  TIMESTAMP,            -- scheduled departure
  reported_at   TIMESTAMP,            -- the time at which the fact became known: scheduled_at plus the delay
  origin        STRING,
  destination   STRING,
  delay_min     BIGINT,               -- minutes; negative is early
  distance_mi   BIGINT                -- miles
) WITH (
  -- Windows are formed by this column, not by the time of arrival.
  event_time = 'scheduled_at',
  -- The watermark follows the latest event time at this distance. A window before it is `closed`.
  -- These flights are behind the latest one by 35 minutes in the median, one in a hundred by 169 minutes or more.
  watermark_delay = '1 hour',
  -- For this long after its end, a window is still updated live. The speed layer excludes later events (for hourly windows 165
  -- of these 245,522 flights) and counts them; the next batch run includes them. With '1 hour' it would
  -- be 3,982, with '1 day' a single one. `trueup streams flights` shows the measured lateness, and suggests settings.
  allowed_lateness = '4 hours'
);

-- Departures per airport and hour. Every view has live results at once; its schedule says how often the batch layer
-- recomputes the changed dates exactly: a cron line such as '*/15 * * * *', or '@every' and a time, as here for a demo.
CREATE VIEW departures WITH (schedule = '@every 5s') AS
SELECT window_start, window_end, origin,
       COUNT(*)                                AS flights,
       -- FILTER counts only some of the rows.
       COUNT(*) FILTER (WHERE delay_min > 15)  AS late_flights,
       -- Small groups are exact at once; live results of large ones are estimates with an interval, until batch has run.
       COUNT(DISTINCT destination)             AS destinations,
       PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY delay_min) AS p95_delay
FROM flights
GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;

-- Delays per route and day. Measures may be combined by arithmetic: a share is a quotient of two counts, and it is
-- right at every grain (`trueup query delays --grain all`), because the counts are merged before they are divided. Dividing
-- integers truncates, so one side is cast to DOUBLE.
CREATE VIEW delays WITH (schedule = '@every 10s') AS
SELECT window_start, window_end, origin, destination,
       COUNT(*)                                                                       AS flights,
       SUM(delay_min)                                                                 AS total_delay,
       AVG(delay_min)                                                                 AS avg_delay,
       CAST(COUNT(*) FILTER (WHERE delay_min > 15) AS DOUBLE) / COUNT(*)              AS late_share
FROM flights
WHERE distance_mi > 0
GROUP BY TUMBLE(scheduled_at, INTERVAL '1' DAY), origin, destination;

-- Without a window there is one row per key over all time, and no event is late.
CREATE VIEW totals WITH (schedule = '@every 10s') AS
SELECT origin,
       COUNT(*)                   AS flights,
       SUM(distance_mi)           AS total_distance,
       AVG(delay_min)             AS avg_delay,
       MIN(delay_min)             AS earliest,
       MAX(delay_min)             AS latest
FROM flights
GROUP BY origin;
