//! Checks wrong sinks.

use super::check;

const VIEWS: &str = "CREATE VIEW delays AS SELECT window_start, origin, COUNT(*) AS n FROM flights
    GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
CREATE VIEW total AS SELECT COUNT(*) AS n FROM flights;
CREATE VIEW visits AS SELECT origin, COUNT(*) AS n FROM flights GROUP BY SESSION(scheduled_at, INTERVAL '1' HOUR), origin;
CREATE VIEW recent AS SELECT origin, COUNT(*) AS n FROM flights GROUP BY SLIDE(scheduled_at, INTERVAL '1' HOUR), origin;
";

#[test]
fn wrong_sinks_are_explained() {
    let options = "the options are to, connection, topic, format, emit, every, key, transactional_id";
    let table = [
        ("CREATE SINK s ^ON delays", "expected FROM, found `ON`", ""),
        (
            "CREATE SINK s ^AS SELECT origin FROM flights",
            "sinks of a SELECT are not supported yet",
            "declare a view, and the sink FROM it",
        ),
        ("CREATE SINK s FROM ^delay WITH (topic = 't')", "unknown view `delay`", "did you mean `delays`?"),
        (
            "CREATE SINK s FROM ^flights WITH (topic = 't')",
            "`flights` is a stream; a sink is from a view",
            "declare a view over the stream, and the sink on it",
        ),
        (
            "CREATE SINK s FROM ^recent WITH (topic = 't')",
            "`recent` has windows of SLIDE: its rows change as time passes, without an event, and never become final",
            "use TUMBLE, HOP, CUMULATE or no window",
        ),
        (
            "CREATE SINK s FROM ^visits WITH (topic = 't', emit = 'final')",
            "`visits` has windows of SESSION: an earlier event moves the start of a session, which would be the key of its record",
            "use TUMBLE, HOP, CUMULATE or no window",
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
