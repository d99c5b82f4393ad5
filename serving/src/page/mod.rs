//! What does a person see? One page that shows every stream and view live, from this server alone.

use axum::Router;

pub fn routes() -> Router {
    Router::new()
}
