//! Checks wrong joins: their tables, keys and names, and the parts that joined views cannot have.

use super::check;

const SHOP: &str = "CREATE TABLE customers (id BIGINT PRIMARY KEY, country STRING, updated_at TIMESTAMP) WITH (event_time = 'updated_at');
CREATE TABLE skus (sku STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
CREATE TABLE parts (shop STRING, number INT, at TIMESTAMP, PRIMARY KEY (shop, number)) WITH (event_time = 'at');
CREATE STREAM orders (customer BIGINT, sku STRING, country STRING, at TIMESTAMP) WITH (event_time = 'at');
CREATE STREAM others (id BIGINT, at TIMESTAMP) WITH (event_time = 'at', retention = '30 days');
CREATE VIEW v ";

#[test]
fn wrong_joins_are_explained() {
    let example = "write ON orders.x = customers.id";
    let table = [
        (
            "FROM orders JOIN ^clients ON customer = id",
            "unknown table `clients`",
            "a table is declared before the statements that join it",
        ),
        ("FROM orders JOIN ^customer ON customer = id", "unknown table `customer`", "did you mean `customers`?"),
        (
            "FROM orders JOIN ^others ON orders.customer = others.id",
            "`others` is a stream: two streams cannot be joined yet",
            "JOIN looks up rows of a table, which CREATE TABLE declares",
        ),
        (
            "FROM orders JOIN ^parts ON sku = shop",
            "the rows of `parts` have a key of several columns (shop, number)",
            "a join looks up rows by one column; add a column to the table that names its rows alone",
        ),
        (
            "FROM ^customers JOIN skus ON country = sku",
            "`customers` is a table: only events of a stream are joined with rows",
            "a change of a row would change the joined rows of the past; join the stream of its changes instead",
        ),
        (
            "FROM orders JOIN customers ON orders.country = customers.^country",
            "rows of `customers` are looked up by their key `id`, and `country` is not it",
            example,
        ),
        (
            "FROM orders JOIN customers ON ^customer = sku",
            "ON compares a column of an event with the key of `customers`",
            example,
        ),
        (
            "FROM orders JOIN customers ON orders.^sku = customers.id",
            "`sku` is STRING, and the key `id` is BIGINT",
            "declare both with one type",
        ),
        ("FROM orders JOIN customers ON ^buyer = customers.id", "unknown column `buyer`", ""),
        ("FROM orders JOIN customers ON ^o.customer = customers.id", "unknown name `o` before the point", ""),
        (
            "FROM orders AS o JOIN customers AS c ON ^country = c.id",
            "several columns are called `country`",
            "write the name of its stream or table before it",
        ),
        (
            "FROM orders JOIN customers ON customer = customers.id ^AND sku = 'a'",
            "ON is one comparison with the key of the table",
            "put other conditions into WHERE",
        ),
        (
            "FROM orders ^RIGHT JOIN customers ON customer = customers.id",
            "RIGHT JOIN is not supported",
            "every event is joined with one row of a table: use INNER JOIN or LEFT JOIN",
        ),
        ("FROM orders LEFT ^customers ON customer = id", "expected JOIN, found `customers`", ""),
        ("FROM orders JOIN ^(SELECT 1) ON a = b", "subqueries are not supported yet", ""),
        ("FROM orders JOIN customers ^USING (id)", "expected ON, found `USING`", ""),
        (
            "FROM orders JOIN customers ON customer = customers.id JOIN ^customers ON customer = customers.id",
            "there are two `customers` behind FROM",
            "give one of them another name with AS",
        ),
        (
            "FROM orders WHERE customer > 1 ^JOIN customers ON customer = customers.id",
            "a JOIN stands directly behind the stream, before WHERE",
            "",
        ),
        (
            "FROM orders^, customers",
            "a view reads one stream",
            "join it with tables: JOIN customers ON orders.customer = customers.id",
        ),
        (
            "FROM orders JOIN customers AS c ON customer = c.id WHERE ^country = 'IE'",
            "several columns are called `country`",
            "write the name of its stream or table before it, such as `t.id`",
        ),
        (
            "FROM orders JOIN customers AS c ON customer = c.id WHERE ^customers.country = 'IE'",
            "unknown name `customers` before the point",
            "columns are those of `orders`, `c`",
        ),
        (
            "FROM orders JOIN customers AS c ON customer = c.id WHERE c.^_retracted",
            "unknown column `_retracted`",
            "the columns are id, country, updated_at",
        ),
        (
            "FROM others ^JOIN customers AS c ON others.id = c.id GROUP BY SESSION(at, INTERVAL '1' HOUR)",
            "sessions of joined events cannot be dropped by retention",
            "remove the retention of the view or of its stream, or use another window",
        ),
    ];
    check(&table, |text| format!("{SHOP}AS SELECT COUNT(*) AS n {text}"));
    let table = [(
        "FROM orders ^JOIN customers AS c ON customer = c.id",
        "a view of the speed layer alone cannot be joined with tables",
        "a late change of a row would never be corrected; remove layers = 'speed'",
    )];
    check(&table, |text| format!("{SHOP}WITH (layers = 'speed') AS SELECT COUNT(*) AS n {text}"));
}

#[test]
fn a_view_has_no_more_than_eight_joins() {
    let join = |number: usize| format!("JOIN customers AS c{number} ON orders.customer = c{number}.id ");
    let eight: String = (0..8).map(join).collect();
    let view = |joins: &str| format!("{SHOP}AS SELECT COUNT(*) AS n FROM orders {joins}");
    assert!(crate::sql::tests::parse(&view(&eight)).is_ok());
    check(&[(&format!("{eight}^{}", join(8)), "a statement has at most 8 joins", "")], view);
}
