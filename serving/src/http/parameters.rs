//! What stands behind the question mark? Pairs of names and values, in order; doors that take few check them here.

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;
use problem::Problem;

use super::refusal::{invalid_parameter, query_string, unknown_parameter};
use crate::nearest::did_you_mean;

/// The decoded parameters of a URL.
pub fn all(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    query_string(uri)
}

/// A door that takes none: whoever gives one hears that it does nothing.
pub async fn none(request: Request, next: Next) -> Result<Response, Problem> {
    match all(request.uri())?.first() {
        None => Ok(next.run(request).await),
        Some((name, _)) => {
            let path = request.uri().path();
            Err(unknown_parameter(format!("there is no parameter \"{name}\": {path} takes none")))
        }
    }
}

/// The values of exactly these parameters; any other is refused, and so is one given twice.
pub fn only<const N: usize>(uri: &Uri, names: [&'static str; N]) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in all(uri)? {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let hint = did_you_mean(&name, names);
            return Err(unknown_parameter(format!("there is no parameter \"{name}\"{hint}")));
        };
        if values[at].replace(value).is_some() {
            return Err(invalid_parameter(format!("{name}: given twice")));
        }
    }
    Ok(values)
}
