//! Parses query strings into pairs of names and values, and checks them for endpoints with few parameters.

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;
use problem::Problem;

use super::refusal::{invalid_parameter, query_string, unknown_parameter};
use shared::sql::suggest::in_parentheses as did_you_mean;

/// Returns the decoded parameters of a URL.
pub fn all(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    query_string(uri)
}

/// Middleware of endpoints without parameters: refuses any.
pub async fn none(request: Request, next: Next) -> Result<Response, Problem> {
    match all(request.uri())?.first() {
        None => Ok(next.run(request).await),
        Some((name, _)) => {
            let path = request.uri().path();
            Err(unknown_parameter(format!("there is no parameter \"{name}\": {path} has none")))
        }
    }
}

/// Returns the values of exactly these parameters; refuses any other, and any that is present twice.
pub fn only<const N: usize>(uri: &Uri, names: [&'static str; N]) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in all(uri)? {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let hint = did_you_mean(&name, names);
            return Err(unknown_parameter(format!("there is no parameter \"{name}\"{hint}")));
        };
        if values[at].replace(value).is_some() {
            return Err(invalid_parameter(format!("{name}: must be given only once")));
        }
    }
    Ok(values)
}
