-- The events of orders. An order is an entity: its events are in one order, with sequences 1, 2, 3 and so on.
CREATE STREAM order_events (
  event_id STRING PRIMARY KEY,
  order_id STRING,
  at       TIMESTAMP,
  kind     STRING,
  customer STRING,
  amount   DECIMAL(10,2)
) WITH (event_time = 'at', entity = 'order_id', partitions = 4);

-- What commands decide by: one row per order.
CREATE VIEW orders AS
SELECT order_id,
       FIRST_VALUE(customer)                         AS customer,
       MAX(amount) FILTER (WHERE kind = 'created')   AS price,
       COUNT(*) FILTER (WHERE kind = 'created')      AS created,
       COUNT(*) FILTER (WHERE kind = 'paid')         AS paid,
       COUNT(*) FILTER (WHERE kind = 'shipped')      AS shipped
FROM order_events
GROUP BY order_id;

-- The read model: how many orders wait for what. Since no rule is ever broken, an order is created, paid and shipped once.
CREATE VIEW orders_by_status AS
SELECT COUNT(*) FILTER (WHERE kind = 'created') - COUNT(*) FILTER (WHERE kind = 'paid')  AS unpaid,
       COUNT(*) FILTER (WHERE kind = 'paid') - COUNT(*) FILTER (WHERE kind = 'shipped')  AS to_ship,
       COUNT(*) FILTER (WHERE kind = 'shipped')                                          AS shipped,
       SUM(amount) FILTER (WHERE kind = 'paid')                                          AS revenue
FROM order_events;
