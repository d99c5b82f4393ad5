//! Serves the OpenAPI 3.1 document of all endpoints at `/openapi.json`, and a page to read and try them at `/docs`.
//!
//! [`endpoints`] lists the endpoints and [`parameters`] their query parameters; a test compares the list with the routes of intake and serving.

mod endpoint;
mod endpoints;
mod parameters;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::{Router, middleware};
use serde_json::{Map, Value, json};
use utoipa_swagger_ui::SwaggerUi;

use self::endpoint::{Endpoint, RequestBody};
use self::endpoints::ENDPOINTS;
use self::parameters::PARAMETERS;

/// Content policy of the page: it loads scripts, styles and data from this server only.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'self'";

/// Returns the routes of the document and the page.
pub fn routes() -> Router {
    let page = SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", document());
    Router::from(page).layer(middleware::map_response(secured))
}

/// Errors of every endpoint; [`QUERY_ERRORS`] are further errors of queries.
const COMMON_ERRORS: &[(u16, &str)] = &[
    (400, "invalid parameter"),
    (401, "no valid key, although the server has keys"),
    (403, "the key does not have the scope"),
    (404, "not found"),
    (405, "method not allowed"),
    (421, "unknown host name"),
    (429, "the key has used up its rate"),
    (503, "service unavailable"),
];
const QUERY_ERRORS: &[(u16, &str)] = &[
    (413, "the query exceeds its memory limit"),
    (429, "too many concurrent queries; retry after the time in Retry-After"),
    (504, "the query exceeded its time limit"),
];

async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in ENDPOINTS {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Trueup",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Live figures that batch runs make exact. All times are RFC 3339 in UTC. Errors are problem details (RFC 9457) with a machine-readable `code`.",
            "license": {"name": "Apache-2.0"}
        },
        "tags": [
            {"name": "queries", "description": "Query the rows of views"},
            {"name": "views", "description": "State of views, and the accuracy of their served figures"},
            {"name": "batch", "description": "Batch runs, versions and files"},
            {"name": "entities", "description": "Append to entities and read their events and states"},
            {"name": "alerts", "description": "Raised alerts"},
            {"name": "sinks", "description": "Views written to topics"},
            {"name": "events", "description": "Send events and inspect streams"},
            {"name": "server", "description": "Health and metrics"}
        ],
        "paths": paths,
        // Needed as soon as there is a key; /livez and /readyz never need one.
        "security": [{"key": []}, {}],
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "a key of `trueup key create`, if the server has keys"}
            }
        }
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let in_path = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let of_path =
        in_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let of_query = endpoint.parameters.iter().map(|name| {
        let (_, schema, text) =
            PARAMETERS.iter().find(|(known, ..)| known == name).expect("a test checks that it is listed");
        let schema: Value = serde_json::from_str(schema).expect("a test parses it");
        // Before the point is the list whose parameter it is, if others have one of the same name.
        let name = name.rsplit('.').next();
        json!({"name": name, "in": "query", "required": false, "description": text, "schema": schema})
    });
    let headers = endpoint.headers.iter().map(|(name, text)| {
        json!({"name": name, "in": "header", "required": false, "description": text, "schema": {"type": "string"}})
    });
    let parameters: Vec<Value> = of_path.chain(of_query).chain(headers).collect();
    let mut responses: Map<String, Value> = Map::new();
    for endpoint::Response { status, text, types, schema } in endpoint.responses {
        responses.insert(status.to_string(), json!({"description": text, "content": content(types, schema)}));
    }
    let of_queries = if ["queries", "entities", "tables"].contains(&endpoint.tag) { QUERY_ERRORS } else { &[] };
    for (status, text) in of_queries.iter().chain(COMMON_ERRORS) {
        let problem = json!({"description": text, "content": content(&["application/problem+json"], "Problem")});
        responses.entry(status.to_string()).or_insert(problem);
    }
    let mut operation = json!({
        "operationId": endpoint.id, "tags": [endpoint.tag], "summary": endpoint.summary, "parameters": parameters, "responses": responses
    });
    if let Some(RequestBody { types, text }) = &endpoint.body {
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

/// Schemas of responses: generated from the types of both layers, or written here where the layers write JSON by hand.
fn schemas() -> Value {
    let mut all = Map::new();
    for components in [serving::http::schemas::schemas(), intake::http::schemas::schemas()] {
        let components = serde_json::to_value(components).expect("schemas are JSON");
        all.extend(components["schemas"].as_object().cloned().unwrap_or_default());
    }
    let row = json!({"type": "object", "description": "dimensions and measures by name, with _layer and _finality"});
    let document = json!({"allOf": [
        {"$ref": "#/components/schemas/DocumentHead"},
        {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": row.clone()}}},
        {"$ref": "#/components/schemas/DocumentTail"}
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
        "EntityState".to_owned(),
        json!({
            "type": "object", "required": ["stream", "id", "sequence", "as_of", "complete", "views"],
            "properties": {
                "stream": {"type": "string"}, "id": {"type": ["string", "integer"]}, "sequence": {"type": "integer"},
                "as_of": {"type": ["string", "null"]}, "complete": {"type": "boolean"},
                "views": {"type": "object", "description": "by view: the entity and its measures, or null"}
            }
        }),
    );
    all.insert(
        "EntityEvents".to_owned(),
        json!({
            "type": "object", "required": ["stream", "id", "sequence", "events", "next_sequence"],
            "properties": {
                "stream": {"type": "string"}, "id": {"type": ["string", "integer"]}, "sequence": {"type": "integer"},
                "events": {"type": "array", "items": {"type": "object"}}, "next_sequence": {"type": ["integer", "null"]}
            }
        }),
    );
    all.insert("TableRow".to_owned(), json!({"type": "object", "description": "the declared columns by name"}));
    all.insert(
        "TableRows".to_owned(),
        json!({
            "type": "object", "required": ["table", "rows", "next"],
            "properties": {
                "table": {"type": "string"}, "rows": {"type": "array", "items": {"$ref": "#/components/schemas/TableRow"}},
                "next": {"type": ["string", "null"]}
            }
        }),
    );
    all.insert(
        "ClearedQuarantine".to_owned(),
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
    fn the_document_is_valid_openapi() {
        let mut document = document();
        // The library writes empty schemas for arbitrary values, but cannot parse them.
        fill(&mut document["components"]["schemas"]);
        for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
            let read = serde_json::from_value::<RefOr<Schema>>(schema.clone());
            assert!(read.is_ok(), "{name}: {schema}");
        }
        let read: OpenApi = serde_json::from_value(document).expect("OpenAPI");
        assert_eq!(
            read.paths.paths.len(),
            ENDPOINTS.iter().map(|endpoint| endpoint.path).collect::<BTreeSet<_>>().len()
        );
    }

    #[test]
    fn every_referenced_schema_exists() {
        let document = document();
        let known = document["components"]["schemas"].as_object().expect("schemas").clone();
        let text = document.to_string();
        let named: BTreeSet<&str> =
            text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let missing: Vec<_> = named.iter().filter(|name| !known.contains_key(**name)).collect();
        assert!(named.len() > 20 && missing.is_empty(), "{missing:?}");
    }

    /// Returns the paths in the source code of the routers.
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
    fn every_route_is_in_the_table_of_scopes() {
        for endpoint in ENDPOINTS {
            let method = endpoint.method.to_uppercase().parse().expect("a method");
            let listed = serving::route_requirement(&method, endpoint.path);
            assert!(listed.is_some(), "{method} {} asks for no scope", endpoint.path);
        }
        let listed = |path: &String| serving::ROUTES.iter().any(|(_, listed, _)| listed == path);
        let missing: Vec<_> = routed().into_iter().filter(|path| !listed(path)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_document_describes_exactly_the_routed_endpoints() {
        let mut described: BTreeSet<String> = ENDPOINTS.iter().map(|endpoint| endpoint.path.to_owned()).collect();
        // The HTML pages are not part of the API.
        let pages =
            ["/", "/view/{view}", "/compare/{view}", "/batch", "/streams", "/alerts", "/sinks", "/login", "/logout"];
        described.extend(pages.map(str::to_owned));
        let routed = routed();
        let missing: Vec<_> = routed.difference(&described).collect();
        assert!(missing.is_empty(), "not described: {missing:?}");
        let pages =
            |path: &&String| !path.starts_with("/v1") && !["/livez", "/readyz", "/metrics"].contains(&path.as_str());
        let extra: Vec<_> = described.difference(&routed).filter(|path| !pages(path)).collect();
        assert!(extra.is_empty(), "described, but not routed: {extra:?}");
    }
}
