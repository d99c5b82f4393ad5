-- Flights: one stream of real events and three views over it.
--
--   trueup check  examples/flights/flights.sql                    what would each layer do?
--   trueup serve  examples/flights/flights.sql
--   trueup ingest flights examples/flights/flights.parquet        245,522 flights of January 2001
--
-- `trueup demo` does all of this at once.

-- A stream is declared like a table. Every event is a JSON object with these fields; a field that is missing is NULL.
CREATE STREAM flights (
  flight_id     STRING PRIMARY KEY,   -- the event id: an event that is sent twice counts once
  scheduled_at  TIMESTAMP,            -- when the flight was to leave
  reported_at   TIMESTAMP,            -- when the fact became known: scheduled_at plus the delay
  origin        STRING,
  destination   STRING,
  delay_min     BIGINT,               -- minutes; negative is early
  distance_mi   BIGINT                -- miles
) WITH (
  -- Windows are cut by this column, not by the time of arrival.
  event_time = 'scheduled_at',
  -- The watermark follows the latest event time at this distance. A window before it is `closed`.
  -- These flights are behind the latest one by 35 minutes in the median, one in a hundred by 169 minutes or more.
  watermark_delay = '1 hour',
  -- So long after its end a window is still updated live. Events that come later still (for hourly windows 165 of these
  -- 245,522 flights) are left out by the speed layer, counted, and put right by the next batch run. With '1 hour' it would
  -- be 3,982, with '1 day' a single one. `trueup streams flights` shows what was measured, and what would fit.
  allowed_lateness = '4 hours'
);

-- Departures per airport and hour. Every view has a live answer at once; its schedule says how often the batch layer
-- recomputes, exactly, what has changed: a cron line such as '*/15 * * * *', or '@every' and a time, as here for a demo.
CREATE VIEW departures WITH (schedule = '@every 5s') AS
SELECT window_start, window_end, origin,
       COUNT(*)                                AS flights,
       -- FILTER counts only some of the rows.
       COUNT(*) FILTER (WHERE delay_min > 15)  AS late_flights,
       -- Small groups are exact at once; of large ones the live answer is an estimate with its interval, until batch has run.
       COUNT(DISTINCT destination)             AS destinations,
       PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY delay_min) AS p95_delay
FROM flights
GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;

-- Delays per route and day. Measures may be combined by arithmetic: a share is a quotient of two counts, and it stays
-- right at every grain (`trueup query delays --grain all`), because the counts are merged and then divided. Dividing
-- integers truncates, so one side is made a DOUBLE.
CREATE VIEW delays WITH (schedule = '@every 10s') AS
SELECT window_start, window_end, origin, destination,
       COUNT(*)                                                                       AS flights,
       SUM(delay_min)                                                                 AS total_delay,
       AVG(delay_min)                                                                 AS avg_delay,
       CAST(COUNT(*) FILTER (WHERE delay_min > 15) AS DOUBLE) / COUNT(*)              AS late_share
FROM flights
WHERE distance_mi > 0
GROUP BY TUMBLE(scheduled_at, INTERVAL '1' DAY), origin, destination;

-- Without a window there is one row per key over all time. No event is ever late for it.
CREATE VIEW totals WITH (schedule = '@every 10s') AS
SELECT origin,
       COUNT(*)                   AS flights,
       SUM(distance_mi)           AS total_distance,
       AVG(delay_min)             AS avg_delay,
       MIN(delay_min)             AS earliest,
       MAX(delay_min)             AS latest
FROM flights
GROUP BY origin;
