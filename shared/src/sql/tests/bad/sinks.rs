//! Checks wrong sinks.

use super::check;

const VIEWS: &str = "CREATE VIEW delays AS SELECT window_start, origin, COUNT(*) AS n FROM flights
    GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
CREATE VIEW total AS SELECT COUNT(*) AS n FROM flights;
CREATE VIEW recent AS SELECT origin, COUNT(*) AS n FROM flights GROUP BY SLIDE(scheduled_at, INTERVAL '1' HOUR), origin;
";

#[test]
fn wrong_sinks_are_explained() {
    let options = "the options are to, connection, topic, format, emit, every, key, transactional_id";
    let table = [
        ("CREATE SINK s ^ON delays", "expected FROM or AS, found `ON`", ""),
        ("CREATE SINK s FROM ^delay WITH (topic = 't')", "unknown view `delay`", "did you mean `delays`?"),
        (
            "CREATE SINK s FROM ^flights WITH (topic = 't')",
            "`flights` is a stream; a sink is from a view",
            "declare a view over the stream, and the sink on it",
        ),
        (
            "CREATE SINK s FROM ^recent WITH (topic = 't')",
            "`recent` has windows of SLIDE: its rows change as time passes, without an event, and never become final",
            "use TUMBLE, HOP, CUMULATE, SESSION or no window",
        ),
        (
            "CREATE SINK s FROM total WITH (connection = 'c', topic = 't', emit = ^'final')",
            "`total` has no windows, so no row of it is ever final",
            "write 'changes', or declare a view with TUMBLE",
        ),
        (
            "CREATE SINK ^s FROM delays WITH (topic = 't')",
            "a sink needs `connection`",
            "name a [connections.NAME] of trueup.toml with kind = \"kafka\"",
        ),
        (
            "CREATE SINK ^s FROM delays WITH (connection = 'c')",
            "a sink needs `topic`",
            "add topic = '..', or write to = 'webhook:NAME'",
        ),
        ("CREATE SINK s FROM delays WITH (^into = 't')", "unknown option `into`", options),
        (
            "CREATE SINK s FROM delays WITH (to = ^'kafka:c/t')",
            "unknown target 'kafka:c/t'",
            "write 'webhook:NAME', or `connection` and `topic` for a topic of Kafka",
        ),
        (
            "CREATE SINK s FROM delays WITH (to = 'webhook:ops', topic = ^'t')",
            "`topic` is an option of sinks that write to a topic",
            "leave out one of `to` and `topic`",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = ^'a b')",
            "'a b' is not the name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`",
            "",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', format = ^'protobuf')",
            "sinks of the format 'protobuf' are not supported yet",
            "",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', emit = ^'change')",
            "unknown value 'change' of emit",
            "did you mean `changes`?",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', every = ^'1 millisecond')",
            "an epoch takes at least 20 milliseconds",
            "write '1 second'",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', key = ^'n')",
            "`n` does not identify rows of `delays`",
            "the columns are window_start, origin",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', key = ^'origin')",
            "the key has every column that identifies a row: `window_start` is missing",
            "leave the option out, or list all of them",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', transactional_id = ^'')",
            "a transactional id has 1 to 255 bytes",
            "",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', transactional_id = 'i');
             CREATE SINK ^r FROM delays WITH (connection = 'c', topic = 'u', transactional_id = 'i')",
            "the sink `s` has the same transactional id",
            "set another `transactional_id`",
        ),
        ("CREATE SINK ^delays FROM delays", "there is already a view called `delays`", ""),
    ];
    check(&table, |text| format!("{VIEWS}{text}"));
}

#[test]
fn wrong_sinks_of_streams_are_explained() {
    const USE_A_VIEW: &str = "declare a view with it, and the sink FROM the view";
    const ONE_EVENT: &str = "is not possible here: a sink of a SELECT writes each event of one stream by itself";
    let clause = |word: &str| format!("{word} {ONE_EVENT}");
    let (group, distinct) = (clause("GROUP BY"), clause("DISTINCT"));
    let (having, order) = (clause("HAVING"), clause("ORDER BY"));
    let options = "the options are to, connection, topic, format, every, key, transactional_id";
    let table = [
        ("CREATE SINK s AS ^origin FROM flights", "expected SELECT, found `origin`", ""),
        ("CREATE SINK s AS SELECT ^DISTINCT origin FROM flights", distinct.as_str(), USE_A_VIEW),
        ("CREATE SINK s AS SELECT origin FROM flights ^GROUP BY origin", group.as_str(), USE_A_VIEW),
        ("CREATE SINK s AS SELECT origin FROM flights WHERE cancelled ^HAVING TRUE", having.as_str(), USE_A_VIEW),
        ("CREATE SINK s AS SELECT origin FROM flights ^ORDER BY origin", order.as_str(), USE_A_VIEW),
        (
            "CREATE SINK s AS SELECT origin FROM flights LEFT JOIN ^t ON a = b",
            "unknown table `t`",
            "a table is declared before the statements that join it",
        ),
        (
            "CREATE TABLE places (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
             CREATE SINK s AS SELECT * FROM flights ^JOIN places ON origin = places.id WITH (to = 'webhook:w')",
            "`*` does not say which columns of a join are meant",
            "name the columns one by one",
        ),
        (
            "CREATE TABLE places (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
             CREATE SINK s AS SELECT origin FROM flights JOIN places ON origin = places.^at WITH (to = 'webhook:w')",
            "rows of `places` are looked up by their key `id`, and `at` is not it",
            "write ON flights.x = places.id",
        ),
        (
            "CREATE SINK s AS SELECT origin FROM flights^, delays",
            "a sink reads one stream",
            "join it with tables: JOIN customers ON orders.customer = customers.id",
        ),
        (
            "CREATE SINK s AS SELECT origin, ^COUNT(*) AS n FROM flights WITH (to = 'webhook:w')",
            "an aggregate is of several events; a sink of a SELECT writes each event by itself",
            USE_A_VIEW,
        ),
        (
            "CREATE SINK s AS SELECT ^window_start, origin FROM flights WITH (to = 'webhook:w')",
            "windows group events; a sink of a SELECT writes each event by itself",
            USE_A_VIEW,
        ),
        (
            "CREATE SINK s AS SELECT ^TUMBLE(scheduled_at, INTERVAL '1' HOUR) AS w FROM flights WITH (to = 'webhook:w')",
            "windows group events; a sink of a SELECT writes each event by itself",
            USE_A_VIEW,
        ),
        (
            "CREATE SINK s AS SELECT origin FROM ^delays WITH (to = 'webhook:w')",
            "`delays` is a view, whose rows change",
            "write FROM VIEW delays instead of AS SELECT",
        ),
        (
            "CREATE TABLE places (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
             CREATE SINK s AS SELECT id FROM ^places WITH (to = 'webhook:w')",
            "`places` is a table: its rows change, and are not events",
            "declare a view of its rows, grouped by their key, and the sink FROM the view",
        ),
        ("CREATE SINK s AS SELECT origin FROM ^flight", "unknown stream `flight`", "did you mean `flights`?"),
        ("CREATE SINK s AS SELECT origin, ^* FROM flights", "`*` stands alone", "name the columns one by one"),
        (
            "CREATE SINK s AS SELECT ^delay_min / 60 FROM flights WITH (to = 'webhook:w')",
            "an expression needs a name",
            "add AS and a name",
        ),
        (
            "CREATE SINK s AS SELECT origin, destination AS ^Origin FROM flights WITH (to = 'webhook:w')",
            "there are two columns called `Origin`",
            "names match without case: give one of them another name",
        ),
        ("CREATE SINK s AS SELECT origin FROM flights WITH (^emit = 'final')", "unknown option `emit`", options),
        (
            "CREATE SINK s AS SELECT origin FROM flights WITH (to = 'webhook:w', key = ^'flight_id')",
            "`flight_id` is not a column of the SELECT",
            "the columns are origin",
        ),
        (
            "CREATE SINK s AS SELECT origin FROM flights WITH (to = 'webhook:w', key = ^'origin, ORIGIN')",
            "`ORIGIN` is given twice",
            "",
        ),
        (
            "CREATE SINK s AS SELECT origin FROM flights WITH (connection = 'c', topic = 't', format = ^'debezium-json')",
            "events are not changes of rows, which debezium-json describes",
            "write 'json' or 'avro', or declare a view, and the sink FROM it",
        ),
        (
            "CREATE SINK s AS SELECT origin AS \"a-b\" FROM flights WITH (connection = 'c', topic = 't', format = ^'avro')",
            "`a-b` is not a name in Avro, which has a-z, A-Z, 0-9 and `_`",
            "give the column another name with AS",
        ),
        (
            "CREATE SINK s FROM delays WITH (connection = 'c', topic = 't', transactional_id = 'i');
             CREATE SINK ^r AS SELECT origin FROM flights WITH (connection = 'c', topic = 'u', transactional_id = 'i')",
            "the sink `s` has the same transactional id",
            "set another `transactional_id`",
        ),
        (
            "CREATE SINK s AS SELECT origin FROM flights WITH (to = 'webhook:w');
             CREATE SINK ^s FROM delays WITH (to = 'webhook:w')",
            "there is already a sink called `s`",
            "",
        ),
    ];
    check(&table, |text| format!("{VIEWS}{text}"));
}
