//! Serves the files of the pages: our own, and plotly.js for the charts, which is compressed once.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use flate2::Compression;
use flate2::write::GzEncoder;
use xxhash_rust::xxh3::xxh3_64;

use crate::bounded_responses::SharedBytes;

/// For addresses that contain the version of the files: their content never changes.
const FOREVER: &str = "public, max-age=31536000, immutable";

const STYLES: [(&str, &str); 8] = [
    ("/assets/base.css", include_str!("../../assets/base.css")),
    ("/assets/overview.css", include_str!("../../assets/overview.css")),
    ("/assets/view.css", include_str!("../../assets/view.css")),
    ("/assets/compare.css", include_str!("../../assets/compare.css")),
    ("/assets/batch.css", include_str!("../../assets/batch.css")),
    ("/assets/streams.css", include_str!("../../assets/streams.css")),
    ("/assets/alerts.css", include_str!("../../assets/alerts.css")),
    ("/assets/sinks.css", include_str!("../../assets/sinks.css")),
];
const SCRIPTS: [(&str, &str); 23] = [
    ("/assets/theme.js", include_str!("../../assets/theme.js")),
    ("/assets/shell.js", include_str!("../../assets/shell.js")),
    ("/assets/fetch_json.js", include_str!("../../assets/fetch_json.js")),
    ("/assets/dom.js", include_str!("../../assets/dom.js")),
    ("/assets/format.js", include_str!("../../assets/format.js")),
    ("/assets/chart_style.js", include_str!("../../assets/chart_style.js")),
    ("/assets/login.js", include_str!("../../assets/login.js")),
    ("/assets/overview.js", include_str!("../../assets/overview.js")),
    ("/assets/view_card.js", include_str!("../../assets/view_card.js")),
    ("/assets/stream_section.js", include_str!("../../assets/stream_section.js")),
    ("/assets/view.js", include_str!("../../assets/view.js")),
    ("/assets/query_state.js", include_str!("../../assets/query_state.js")),
    ("/assets/view_chart.js", include_str!("../../assets/view_chart.js")),
    ("/assets/export_panel.js", include_str!("../../assets/export_panel.js")),
    ("/assets/live_updates.js", include_str!("../../assets/live_updates.js")),
    ("/assets/notices.js", include_str!("../../assets/notices.js")),
    ("/assets/confirm_button.js", include_str!("../../assets/confirm_button.js")),
    ("/assets/compare.js", include_str!("../../assets/compare.js")),
    ("/assets/batch.js", include_str!("../../assets/batch.js")),
    ("/assets/entity.js", include_str!("../../assets/entity.js")),
    ("/assets/streams.js", include_str!("../../assets/streams.js")),
    ("/assets/alerts.js", include_str!("../../assets/alerts.js")),
    ("/assets/sinks.js", include_str!("../../assets/sinks.js")),
];
const ICON: &str = include_str!("../../assets/icon.svg");

struct Plotly {
    plain: Bytes,
    gzipped: Bytes,
    etag: HeaderValue,
}

/// The chart library from the `plotly` crate: the content of its first script tag.
static PLOTLY: LazyLock<Plotly> = LazyLock::new(|| {
    let tags = plotly::Plot::offline_js_sources();
    let script = tags.split_once('>').and_then(|(_, rest)| rest.split_once("</script>")).map_or("", |(js, _)| js);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let gzipped = encoder.write_all(script.as_bytes()).and_then(|()| encoder.finish());
    let etag = format!("\"{:016x}\"", xxh3_64(script.as_bytes()));
    Plotly {
        plain: Bytes::copy_from_slice(script.as_bytes()),
        gzipped: Bytes::from(gzipped.expect("compressing into memory does not fail")),
        etag: HeaderValue::try_from(etag).expect("hex digits are a header's value"),
    }
});

/// Returns a hash of our own files, which identifies their version.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let files = STYLES.iter().chain(&SCRIPTS).map(|(_, text)| *text);
        let all: String = files.chain([ICON]).collect();
        format!("{:08x}", xxh3_64(all.as_bytes()) as u32)
    });
    &VERSION
}

/// Returns the routes of the files.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut routes = Router::new()
        .route("/assets/plotly.min.js", get(plotly))
        .route("/assets/icon.svg", own("image/svg+xml", ICON))
        .route("/favicon.ico", own("image/svg+xml", ICON));
    for (path, style) in STYLES {
        routes = routes.route(path, own("text/css; charset=utf-8", style));
    }
    for (path, script) in SCRIPTS {
        routes = routes.route(path, own("text/javascript; charset=utf-8", script));
    }
    routes
}

fn own<S: Clone + Send + Sync + 'static>(kind: &'static str, text: &'static str) -> MethodRouter<S> {
    let etag = HeaderValue::try_from(format!("\"{:016x}\"", xxh3_64(text.as_bytes())))
        .expect("hex digits are a header's value");
    get(move |headers: HeaderMap| async move {
        let response = Response::new(Body::from(text));
        // Modules import each other without a version, so browsers have to revalidate them.
        cached(response, &headers, etag, kind, "no-cache")
    })
}

async fn plotly(headers: HeaderMap) -> Response {
    let file = tokio::task::spawn_blocking(|| &*PLOTLY).await;
    let Ok(file) = file else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let gzip = headers.get_all(header::ACCEPT_ENCODING).iter().any(|v| v.to_str().is_ok_and(accepts_gzip));
    let mut response = Response::new(Body::from(if gzip { file.gzipped.clone() } else { file.plain.clone() }));
    if gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    cached(response, &headers, file.etag.clone(), "text/javascript; charset=utf-8", FOREVER)
}

fn accepts_gzip(accept: &str) -> bool {
    accept.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        matches!(name.trim(), "gzip" | "*") && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

fn cached(
    mut response: Response,
    request: &HeaderMap,
    etag: HeaderValue,
    kind: &'static str,
    caching: &'static str,
) -> Response {
    let known = request.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let tag = etag.to_str().unwrap_or_default();
    if known.is_some_and(|known| known.split(',').any(|k| k.trim().trim_start_matches("W/") == tag)) {
        response = StatusCode::NOT_MODIFIED.into_response();
    } else {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response.headers_mut().insert(header::ETAG, etag);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    response.extensions_mut().insert(SharedBytes);
    response
}
