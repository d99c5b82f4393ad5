//! Which doors does the server have? Reading views, steering runs, watching streams, health, and the page.
//!
//! [`rows`]: the figures, [`entity_tag`] whether they changed, [`ranges`] a piece of them, [`repeated`] whether they
//! were asked for a moment ago, [`live`] how they change. [`views`]: what a view is and
//! how it stands, [`drift`] how far off it had been. [`runs`] and [`streams`]: the batch layer and intake. [`origins`]: which pages elsewhere may read. [`health`]: for
//! those who keep the server alive. [`problem`]: every refusal. Handlers only translate.

mod drift;
pub(crate) mod entity_tag;
mod health;
mod live;
mod origins;
mod parameters;
pub mod problem;
mod ranges;
mod response_cache;
mod rows;
mod runs;
pub mod schemas;
mod streams;
mod views;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Extension, Router, middleware};
use serde::Serialize;
use shared::clock::Clock;
use shared::control::{Runs, Streams};
use shared::published::{Published, Views};
use shared::readers::{BatchReader, PastReader, SpeedReader};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

pub use self::origins::{Origins, WrongOrigin};
use self::problem::Problem;
use self::ranges::KeptAnswers;
use self::response_cache::RepeatedAnswers;
use crate::admission::Queries;
use crate::formats::Format;
use crate::nearest::did_you_mean;
use crate::page;
use crate::pin::Doors;
use crate::push::Feeds;

/// Bodies smaller than this many bytes are sent as they are: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: u16 = 1024;

/// Everything the doors lead to.
#[derive(Clone)]
pub struct ServingState {
    pub views: Arc<Views>,
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    pub past: Arc<dyn PastReader>,
    pub runs: Arc<dyn Runs>,
    pub streams: Arc<dyn Streams>,
    pub queries: Arc<Queries>,
    pub clock: Arc<dyn Clock>,
    /// Becomes true once recovery is done, and false again when the server begins to stop.
    pub ready: Arc<AtomicBool>,
    /// Renders all metrics in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl ServingState {
    pub(crate) fn doors(&self) -> Doors {
        Doors {
            views: Arc::clone(&self.views),
            speed: Arc::clone(&self.speed),
            batch: Arc::clone(&self.batch),
            past: Arc::clone(&self.past),
        }
    }

    fn view(&self, name: &str) -> Result<Arc<Published>, Problem> {
        self.views.get(name).ok_or_else(|| self.unknown_view(name))
    }

    fn unknown_view(&self, name: &str) -> Problem {
        let views = self.views.all();
        let hint = did_you_mean(name, views.iter().map(|p| p.view.name.as_str()));
        Problem::unknown("unknown_view", format!("there is no view called \"{name}\"{hint}"))
    }
}

/// All routes of the serving layer, with compression and with problems for unknown paths and methods.
/// `others`: the doors of other layers. `origins`: pages of other origins that may come.
pub fn routes(state: ServingState, others: Router, origins: &Origins) -> Router {
    let compressed = SizeAbove::new(COMPRESSED_BYTES_MIN)
        .and(NotForContentType::const_new("application/vnd.apache.parquet"))
        .and(NotForContentType::SSE);
    Router::new()
        .route("/v1/views", plain(get(views::list)))
        .route("/v1/views/{view}", plain(get(views::describe)))
        .route("/v1/views/{view}/rows", get(rows::negotiated))
        .route("/v1/views/{view}/rows.json", rows_in(Format::Json))
        .route("/v1/views/{view}/rows.ndjson", rows_in(Format::Ndjson))
        .route("/v1/views/{view}/rows.csv", rows_in(Format::Csv))
        .route("/v1/views/{view}/rows.parquet", rows_in(Format::Parquet))
        .route("/v1/views/{view}/rows.arrow", rows_in(Format::Arrow))
        .route("/v1/views/{view}/live", get(live::live))
        .route("/v1/views/{view}/compare", get(views::compare))
        .route("/v1/views/{view}/drift", get(drift::drift))
        .route("/v1/views/{view}/versions", plain(get(views::versions)))
        .route("/v1/views/{view}/runs", plain(post(runs::request)))
        .route("/v1/views/{view}/vacuum", plain(post(runs::vacuum)))
        .route("/v1/runs", get(runs::list))
        .route("/v1/runs/{run}", plain(get(runs::describe).delete(runs::cancel)))
        .route("/v1/streams", plain(get(streams::list)))
        .route("/v1/streams/{stream}/compact", plain(post(streams::compact)))
        .route("/v1/streams/{stream}", plain(get(streams::describe)))
        .route("/v1/streams/{stream}/late", get(streams::late))
        .route("/v1/streams/{stream}/ahead", get(streams::ahead))
        .route(
            "/v1/streams/{stream}/quarantine",
            get(streams::quarantine).merge(plain(delete(streams::empty_quarantine))),
        )
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .merge(page::routes())
        .layer(Extension(Arc::new(KeptAnswers::default())))
        .layer(Extension(Arc::new(Feeds::default())))
        .layer(Extension(Arc::new(RepeatedAnswers::default())))
        .with_state(state)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressed))
        .merge(others)
        .layer(middleware::from_fn_with_state(origins.clone(), origins::guard))
        .layer(origins.layer())
}

/// A door that takes no parameters.
fn plain(door: MethodRouter<ServingState>) -> MethodRouter<ServingState> {
    door.route_layer(middleware::from_fn(parameters::none))
}

/// The door of an extension.
fn rows_in(format: Format) -> MethodRouter<ServingState> {
    get(move |state, view, kept, request| rows::in_format(format, state, view, kept, request))
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::unknown("unknown_path", format!("there is nothing at {}; GET /v1/views lists the views", uri.path()))
}

async fn wrong_method(uri: Uri) -> Problem {
    let detail = format!("{} does not take this method", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Wrong method", detail)
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("plain data has a JSON form");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
