//! Checks valid sinks.

use std::time::Duration;

use super::parse;
use crate::alert::KeyColumn;
use crate::sink::{Emit, Sink};

const VIEWS: &str = "CREATE VIEW delays AS SELECT window_start, origin, COUNT(*) AS n FROM flights
        GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
    CREATE VIEW daily AS SELECT COUNT(*) AS n FROM flights
        GROUP BY CUMULATE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' DAY);
    CREATE VIEW total AS SELECT COUNT(*) AS n FROM flights;";

fn declared(statement: &str) -> Sink {
    let definitions =
        parse(&format!("{VIEWS}\n{statement}")).unwrap_or_else(|errors| panic!("{statement}: {}", errors[0]));
    definitions.sinks[0].clone()
}

#[test]
fn options_have_defaults_and_the_key_is_that_of_the_row() {
    let sink = declared("CREATE SINK out FROM VIEW delays WITH (connection = 'main', topic = 'delays.v1')");
    let topic = sink.target.topic().expect("a topic");
    assert_eq!((sink.view.as_str(), topic.topic.as_str()), ("delays", "delays.v1"));
    assert_eq!((sink.every, topic.transactional_id.as_str()), (Duration::from_secs(1), "trueup-out-delays.v1"));
    assert_eq!(sink.key, [KeyColumn::WindowStart, KeyColumn::Dimension(0)]);
    let sink = declared(
        "CREATE SINK out FROM delays WITH (connection = 'main', topic = 't', format = 'json', emit = 'changes',
         every = '50 milliseconds', key = 'Origin, window_start', transactional_id = 'id')",
    );
    assert_eq!((sink.every, sink.writer_id()), (Duration::from_millis(50), "id"));
    assert_eq!(sink.key, [KeyColumn::WindowStart, KeyColumn::Dimension(0)]);
    let of_final = declared("CREATE SINK out FROM delays WITH (connection = 'main', topic = 't', emit = 'final')");
    assert_eq!((sink.emit, of_final.emit), (Emit::Changes, Emit::Final));
    let key =
        |view: &str| declared(&format!("CREATE SINK out FROM {view} WITH (connection = 'main', topic = 't')")).key;
    // Windows of CUMULATE share their start.
    assert_eq!(key("daily"), [KeyColumn::WindowStart, KeyColumn::WindowEnd]);
    assert_eq!(key("total"), []);
    let hook = declared("CREATE SINK out FROM delays WITH (to = 'webhook:ops', every = '2 seconds', emit = 'final')");
    assert_eq!((hook.target.to_string(), hook.writer_id(), hook.emit), ("webhook:ops".to_owned(), "out", Emit::Final));
    assert_eq!((sink.every_text(), of_final.every_text()), ("50 milliseconds".to_owned(), "1 second".to_owned()));
}
