//! Which files does the page consist of? Small ones of our own, and the charts of plotly.js, compressed once.

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

/// Content behind this address never changes: it carries the version of the files.
const FOREVER: &str = "public, max-age=31536000, immutable";

const STYLE: &str = include_str!("../../assets/page.css");
const SCRIPTS: [(&str, &str); 5] = [
    ("/assets/page.js", include_str!("../../assets/page.js")),
    ("/assets/card.js", include_str!("../../assets/card.js")),
    ("/assets/chart.js", include_str!("../../assets/chart.js")),
    ("/assets/streams.js", include_str!("../../assets/streams.js")),
    ("/assets/text.js", include_str!("../../assets/text.js")),
];
const ICON: &str = include_str!("../../assets/icon.svg");

struct Plotly {
    plain: Bytes,
    gzipped: Bytes,
    etag: HeaderValue,
}

/// The chart library out of the `plotly` crate: the first of its script tags, without the tag.
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

/// Tells the versions of our own files apart.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let scripts = SCRIPTS.iter().map(|(_, script)| *script);
        let all: String = scripts.chain([STYLE, ICON]).collect();
        format!("{:08x}", xxh3_64(all.as_bytes()) as u32)
    });
    &VERSION
}

/// The doors of the files.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut routes = Router::new()
        .route("/assets/plotly.min.js", get(plotly))
        .route("/assets/page.css", own("text/css; charset=utf-8", STYLE))
        .route("/assets/icon.svg", own("image/svg+xml", ICON))
        .route("/favicon.ico", own("image/svg+xml", ICON));
    for (path, script) in SCRIPTS {
        routes = routes.route(path, own("text/javascript; charset=utf-8", script));
    }
    routes
}

fn own<S: Clone + Send + Sync + 'static>(kind: &'static str, text: &'static str) -> MethodRouter<S> {
    let etag = HeaderValue::try_from(format!("\"{:016x}\"", xxh3_64(text.as_bytes())))
        .expect("hex digits are a header's value");
    get(move |headers: HeaderMap| async move {
        let answered = Response::new(Body::from(text));
        // Modules name each other without a version, so browsers ask whether they are still current.
        cached(answered, &headers, etag, kind, "no-cache")
    })
}

async fn plotly(headers: HeaderMap) -> Response {
    let file = tokio::task::spawn_blocking(|| &*PLOTLY).await;
    let Ok(file) = file else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let gzip = headers.get_all(header::ACCEPT_ENCODING).iter().any(|v| v.to_str().is_ok_and(accepts_gzip));
    let mut answered = Response::new(Body::from(if gzip { file.gzipped.clone() } else { file.plain.clone() }));
    if gzip {
        answered.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answered.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    cached(answered, &headers, file.etag.clone(), "text/javascript; charset=utf-8", FOREVER)
}

fn accepts_gzip(accept: &str) -> bool {
    accept.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        matches!(name.trim(), "gzip" | "*") && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

fn cached(
    mut answered: Response,
    asked: &HeaderMap,
    etag: HeaderValue,
    kind: &'static str,
    how_long: &'static str,
) -> Response {
    let known = asked.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let tag = etag.to_str().unwrap_or_default();
    if known.is_some_and(|known| known.split(',').any(|k| k.trim().trim_start_matches("W/") == tag)) {
        answered = StatusCode::NOT_MODIFIED.into_response();
    } else {
        answered.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    answered.headers_mut().insert(header::ETAG, etag);
    answered.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(how_long));
    answered
}
