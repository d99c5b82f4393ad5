//! Quotes names for statements.

/// The name as an identifier that no letter of it can end.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table, `NAME` or `SCHEMA.NAME`, likewise.
pub(crate) fn table(name: &str) -> String {
    name.split('.').map(identifier).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        assert_eq!(table("Shop.out\"; DROP"), "\"Shop\".\"out\"\"; DROP\"");
    }
}
