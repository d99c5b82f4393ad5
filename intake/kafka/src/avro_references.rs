//! Makes one Avro schema of a schema and those it refers to: puts each definition where its name first occurs, because
//! readers of Avro take a single text.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::registry::RegisteredSchema;

/// Depth of types in types.
const DEPTH_MAX: usize = 100;

/// Returns the schema as one text.
///
/// # Errors
/// A text is not JSON, or types are nested too deeply.
pub fn without_references(schema: &RegisteredSchema) -> Result<String, String> {
    if schema.references.is_empty() {
        return Ok(schema.text.clone());
    }
    let mut whole = parse(&schema.text)?;
    Inlining { schema, defined: HashSet::new() }.visit(&mut whole, "", 0)?;
    Ok(whole.to_string())
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))
}

struct Inlining<'a> {
    schema: &'a RegisteredSchema,
    /// Full names of the references whose definition is in the text.
    defined: HashSet<String>,
}

impl Inlining<'_> {
    /// Visits a type. `namespace` is that of the type around it.
    fn visit(&mut self, value: &mut Value, namespace: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("types are nested more than {DEPTH_MAX} deep"));
        }
        match value {
            Value::String(name) => {
                let full = if name.contains('.') || namespace.is_empty() {
                    name.clone()
                } else {
                    format!("{namespace}.{name}")
                };
                let found = [full, name.clone()].into_iter().find(|name| self.schema.references.contains_key(name));
                if let Some(found) = found
                    && self.defined.insert(found.clone())
                {
                    *value = parse(&self.schema.references[&found])?;
                    self.visit(value, "", depth + 1)?;
                }
                Ok(())
            }
            Value::Array(union) => union.iter_mut().try_for_each(|one| self.visit(one, namespace, depth + 1)),
            Value::Object(object) => self.visit_object(object, namespace, depth),
            _ => Ok(()),
        }
    }

    fn visit_object(&mut self, object: &mut Map<String, Value>, namespace: &str, depth: usize) -> Result<(), String> {
        let name = object.get("name").and_then(Value::as_str);
        let own = match (object.get("namespace").and_then(Value::as_str), name.and_then(|name| name.rsplit_once('.'))) {
            (_, Some((own, _))) => own.to_owned(),
            (Some(own), None) => own.to_owned(),
            (None, None) => namespace.to_owned(),
        };
        for member in ["type", "items", "values"] {
            if let Some(inner) = object.get_mut(member) {
                self.visit(inner, &own, depth + 1)?;
            }
        }
        let fields = object.get_mut("fields").and_then(Value::as_array_mut);
        for field in fields.into_iter().flatten() {
            if let Some(inner) = field.get_mut("type") {
                self.visit(inner, &own, depth + 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &Value, references: &[(&str, Value)]) -> Result<Value, String> {
        let references = references.iter().map(|(name, text)| ((*name).to_owned(), text.to_string())).collect();
        without_references(&RegisteredSchema { text: text.to_string(), references })
            .map(|text| parse(&text).expect("JSON"))
    }

    #[test]
    fn a_definition_stands_where_its_name_first_occurs() {
        let money = json!({"type": "record", "name": "Money", "namespace": "shop", "fields": [{"name": "cents", "type": "long"}]});
        let line =
            json!({"type": "record", "name": "shop.Line", "fields": [{"name": "price", "type": ["null", "Money"]}]});
        let order = json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [
            {"name": "lines", "type": {"type": "array", "items": "shop.Line"}},
            {"name": "total", "type": "Money"},
            {"name": "by", "type": {"type": "map", "values": "shop.Line"}}]});
        let whole = one(&order, &[("shop.Money", money.clone()), ("shop.Line", line)]).expect("one schema");
        let inlined =
            json!({"type": "record", "name": "shop.Line", "fields": [{"name": "price", "type": ["null", money]}]});
        assert_eq!(whole["fields"][0]["type"]["items"], inlined);
        assert_eq!(whole["fields"][1]["type"], json!("Money"), "it is defined by then");
        assert_eq!(whole["fields"][2]["type"]["values"], json!("shop.Line"));
    }

    #[test]
    fn schemas_that_refer_to_each_other_end() {
        let a = json!({"type": "record", "name": "A", "fields": [{"name": "b", "type": ["null", "B"]}]});
        let b = json!({"type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]});
        let whole = one(&a, &[("B", b.clone()), ("A", a.clone())]).expect("one schema");
        assert_eq!(whole["fields"][0]["type"][1]["name"], json!("B"));
        assert!(one(&json!("A"), &[("A", json!("no schema")), ("B", b)]).is_ok());
        let mut deep = json!("long");
        for _ in 0..200 {
            deep = json!({"type": "array", "items": deep});
        }
        assert!(one(&deep, &[("A", a)]).is_err());
    }
}
