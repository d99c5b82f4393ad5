//! How do programs find out what the server takes and gives? An OpenAPI 3.1 document of every door, at `/openapi.json`, and a
//! page to read and try it, at `/docs`. [`doors`] lists them; a test compares with the routes of both layers.

mod endpoints;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::{Router, middleware};
use serde_json::{Map, Value, json};
use utoipa_swagger_ui::SwaggerUi;

use self::endpoints::{Answer, Body, DOORS, Door, PARAMETERS};

/// The page's own scripts and styles, and the server it came from: nothing from elsewhere.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'self'";

/// The document and the page.
pub fn routes() -> Router {
    let page = SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", document());
    Router::from(page).layer(middleware::map_response(secured))
}

/// How any door may refuse, and how those that compute something may.
const USUAL: &[(u16, &str)] = &[
    (400, "a parameter cannot be used"),
    (404, "there is no such thing"),
    (405, "the method is not taken here"),
    (503, "a layer cannot answer now"),
];
const LIMITED: &[(u16, &str)] = &[
    (413, "the query would add up more than one may"),
    (429, "too many queries at once; Retry-After says when to come back"),
    (504, "the query took longer than one may"),
];

async fn secured(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for door in DOORS {
        let path = paths.entry(door.path).or_insert_with(|| json!({}));
        path[door.method] = operation(door);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Trueup",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Live figures that become exact. All times are RFC 3339 in UTC. Errors are problem details (RFC 9457) with a machine-readable `code`.",
            "license": {"name": "Apache-2.0"}
        },
        "tags": [
            {"name": "figures", "description": "What views say"},
            {"name": "views", "description": "What views are, and how far off they had been"},
            {"name": "batch", "description": "Runs, versions and files"},
            {"name": "events", "description": "What comes in"},
            {"name": "server", "description": "For those who keep it alive"}
        ],
        "paths": paths,
        "components": {"schemas": schemas()}
    })
}

fn operation(door: &Door) -> Value {
    let in_path = door.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let of_path =
        in_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let of_query = door.parameters.iter().map(|name| {
        let (_, schema, text) = PARAMETERS.iter().find(|(known, ..)| known == name).expect("a test looks for it");
        let schema: Value = serde_json::from_str(schema).expect("a test reads it");
        json!({"name": name, "in": "query", "required": false, "description": text, "schema": schema})
    });
    let headers = door.headers.iter().map(|(name, text)| {
        json!({"name": name, "in": "header", "required": false, "description": text, "schema": {"type": "string"}})
    });
    let parameters: Vec<Value> = of_path.chain(of_query).chain(headers).collect();
    let mut answers: Map<String, Value> = Map::new();
    for Answer { status, text, types, schema } in door.answers {
        answers.insert(status.to_string(), json!({"description": text, "content": content(types, schema)}));
    }
    for (status, text) in USUAL.iter().chain(if door.tag == "figures" { LIMITED } else { &[] }) {
        let problem = json!({"description": text, "content": content(&["application/problem+json"], "Problem")});
        answers.entry(status.to_string()).or_insert(problem);
    }
    let mut operation = json!({
        "operationId": door.id, "tags": [door.tag], "summary": door.summary, "parameters": parameters, "responses": answers
    });
    if let Some(Body { types, text }) = &door.body {
        operation["requestBody"] = json!({"required": false, "description": text, "content": content(types, "")});
    }
    operation
}

fn content(types: &[&str], name: &str) -> Value {
    let schema = |media: &str| match media {
        "application/json" | "application/problem+json" if !name.is_empty() => {
            json!({"$ref": format!("#/components/schemas/{name}")})
        }
        "application/json" => json!({"oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}),
        _ => json!({"type": "string"}),
    };
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema(media)}))).collect::<Map<_, _>>().into()
}

/// What answers look like: from the types that both layers write them from, and what is written by hand there.
fn schemas() -> Value {
    let mut all = Map::new();
    for components in [serving::http::schemas::schemas(), intake::http::schemas::schemas()] {
        let components = serde_json::to_value(components).expect("schemas are JSON");
        all.extend(components["schemas"].as_object().cloned().unwrap_or_default());
    }
    let row = json!({"type": "object", "description": "dimensions and measures by name, with _layer and _finality"});
    let document = json!({"allOf": [
        {"$ref": "#/components/schemas/Head"},
        {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": row.clone()}}},
        {"$ref": "#/components/schemas/Tail"}
    ]});
    let list = json!({"type": "array", "items": row, "description": "with shape=rows"});
    all.insert("Rows".to_owned(), json!({"oneOf": [document, list]}));
    all.insert(
        "Events".to_owned(),
        json!({
            "type": "object", "required": ["stream", "total", "kept", "kept_max", "listed", "events", "next"],
            "properties": {
                "stream": {"type": "string"}, "total": {"type": "integer"}, "kept": {"type": "integer"},
                "kept_max": {"type": "integer"}, "listed": {"type": "integer"},
                "events": {"type": "array", "items": {"type": "object"}}, "next": {"type": ["string", "null"]}
            }
        }),
    );
    all.insert(
        "Emptied".to_owned(),
        json!({"type": "object", "required": ["removed"], "properties": {"removed": {"type": "integer"}}}),
    );
    all.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use utoipa::openapi::{OpenApi, RefOr, Schema};

    use super::*;

    fn fill(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.values_mut().for_each(fill);
                let only_described = members.keys().all(|name| name == "description");
                if only_described && members.values().all(Value::is_string) {
                    members.insert("type".to_owned(), json!("string"));
                }
            }
            Value::Array(elements) => elements.iter_mut().for_each(fill),
            _ => {}
        }
    }

    #[test]
    fn the_document_is_one_that_the_library_reads() {
        let mut document = document();
        // The library writes schemas of anything, which are empty, but does not read them.
        fill(&mut document["components"]["schemas"]);
        for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
            let read = serde_json::from_value::<RefOr<Schema>>(schema.clone());
            assert!(read.is_ok(), "{name}: {schema}");
        }
        let read: OpenApi = serde_json::from_value(document).expect("OpenAPI");
        assert_eq!(read.paths.paths.len(), DOORS.iter().map(|door| door.path).collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document();
        let known = document["components"]["schemas"].as_object().expect("schemas").clone();
        let text = document.to_string();
        let named: BTreeSet<&str> =
            text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let missing: Vec<_> = named.iter().filter(|name| !known.contains_key(**name)).collect();
        assert!(named.len() > 20 && missing.is_empty(), "{missing:?}");
    }

    /// Paths in the sources of the layers' routers.
    fn routed() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = BTreeSet::new();
        for file in ["serving/src/routes.rs", "intake/src/http/mod.rs"] {
            let text = std::fs::read_to_string(root.join(file)).expect("readable");
            let found =
                text.match_indices(".route(").filter_map(|(at, _)| text[at + 7..].trim_start().strip_prefix('"'));
            paths.extend(found.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
        paths
    }

    #[test]
    fn every_door_is_described_and_no_other() {
        let mut described: BTreeSet<String> = DOORS.iter().map(|door| door.path.to_owned()).collect();
        // The pages are for people.
        described.extend(["/", "/view/{view}", "/compare/{view}", "/batch", "/streams"].map(str::to_owned));
        let routed = routed();
        let missing: Vec<_> = routed.difference(&described).collect();
        assert!(missing.is_empty(), "not described: {missing:?}");
        let pages =
            |path: &&String| !path.starts_with("/v1") && !["/livez", "/readyz", "/metrics"].contains(&path.as_str());
        let extra: Vec<_> = described.difference(&routed).filter(|path| !pages(path)).collect();
        assert!(extra.is_empty(), "described, but not there: {extra:?}");
    }
}
