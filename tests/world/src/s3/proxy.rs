//! Proxies an S3 server and injects faults: errors before and after a request is executed, responses that are lost or
//! truncated, closed connections, refusals of conditional puts that no writer won, and retries that meet the success of
//! their first attempt.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;

/// Longer than any client of the tests waits.
const NEVER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 500 or 503 without execution.
    ErrorBefore,
    /// 500 or 503 after execution.
    ErrorAfter,
    /// The connection closes before execution.
    CloseBefore,
    /// The connection closes after execution.
    CloseAfter,
    /// The request is executed, and the response is never sent.
    NoAnswer,
    /// The response ends in the middle.
    CutAnswer,
    /// 409 for a conditional put, without execution.
    Conflict,
    /// A conditional put is executed twice; the client gets the response of the second one: 412.
    Repeated,
}

/// Faults of any request, and of conditional puts.
const USUAL: [Fault; 7] = [
    Fault::ErrorBefore,
    Fault::ErrorAfter,
    Fault::CloseBefore,
    Fault::CloseAfter,
    Fault::CutAnswer,
    Fault::CutAnswer,
    Fault::NoAnswer,
];
const CONDITIONAL: [Fault; 6] =
    [Fault::Conflict, Fault::Conflict, Fault::Repeated, Fault::ErrorAfter, Fault::CloseAfter, Fault::NoAnswer];

/// Faults in random order, each of which occurs within a bounded number of requests.
struct Deck {
    all: Vec<Option<Fault>>,
    left: Vec<Option<Fault>>,
}

impl Deck {
    /// A deck of `cards` entries: `faults`, and the rest without a fault.
    fn new(faults: &[Fault], cards: usize) -> Deck {
        let mut all: Vec<Option<Fault>> = faults.iter().copied().map(Some).collect();
        all.resize(cards, None);
        Deck { all, left: Vec::new() }
    }

    fn deal(&mut self, random: &mut StdRng) -> Option<Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.left.shuffle(random);
        }
        self.left.pop().expect("a deck has cards")
    }
}

struct Decks {
    random: StdRng,
    usual: Deck,
    conditional: Deck,
}

/// The proxy. Ends when dropped.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    upstream: String,
    client: reqwest::Client,
    decks: Mutex<Decks>,
    faulty: AtomicBool,
    away: AtomicBool,
    /// Requests whose path contains it fail.
    broken: Mutex<Option<String>>,
    /// moto checks and then writes; a real store decides atomically.
    conditional: tokio::sync::Mutex<()>,
    counts: Mutex<BTreeMap<Fault, u64>>,
}

/// The connection is closed without a response.
#[derive(Debug, thiserror::Error)]
#[error("closed")]
struct Closed;

impl Proxy {
    /// Starts the proxy of the server on `upstream`, without faults at first.
    pub fn start(upstream: u16, seed: u64) -> Proxy {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let state = Arc::new(State {
            upstream: format!("http://127.0.0.1:{upstream}"),
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            decks: Mutex::new(Decks {
                random: StdRng::seed_from_u64(seed),
                usual: Deck::new(&USUAL, 80),
                conditional: Deck::new(&CONDITIONAL, 12),
            }),
            faulty: AtomicBool::new(false),
            away: AtomicBool::new(false),
            broken: Mutex::new(None),
            conditional: tokio::sync::Mutex::default(),
            counts: Mutex::default(),
        });
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                if shared.away.load(Ordering::SeqCst) {
                    continue;
                }
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let answer = service_fn(|request| state.answer(request));
                    // Errors of a connection are reported by the client.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Proxy { port, state, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Switches the injection of faults on or off.
    pub fn set_faulty(&self, faulty: bool) {
        self.state.faulty.store(faulty, Ordering::SeqCst);
    }

    /// Switches an outage on or off.
    pub fn set_away(&self, away: bool) {
        self.state.away.store(away, Ordering::SeqCst);
    }

    /// Answers requests whose path contains `part` with 503.
    pub fn set_broken(&self, part: Option<&str>) {
        *self.state.broken.lock().expect("no panic") = part.map(str::to_owned);
    }

    /// The number of faults of each kind.
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.state.counts.lock().expect("no panic").clone()
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| Closed)?;
        if self.away.load(Ordering::SeqCst) {
            return Err(Closed);
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let is_broken = self.broken.lock().expect("no panic").as_ref().is_some_and(|part| path.contains(part.as_str()));
        if is_broken {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE));
        }
        let is_conditional = parts.headers.contains_key("if-none-match");
        let fault = self.draw(&parts.method, is_conditional);
        match fault {
            Some(Fault::ErrorBefore) => return Ok(plain(self.error())),
            Some(Fault::CloseBefore) => return Err(Closed),
            Some(Fault::Conflict) => return Ok(plain(StatusCode::CONFLICT)),
            _ => {}
        }
        let one_at_a_time = if is_conditional { Some(self.conditional.lock().await) } else { None };
        let mut answer = self.forward(&parts.method, &path, &parts.headers, body.clone()).await?;
        if fault == Some(Fault::Repeated) {
            answer = self.forward(&parts.method, &path, &parts.headers, body).await?;
        }
        drop(one_at_a_time);
        match fault {
            Some(Fault::ErrorAfter) => Ok(plain(self.error())),
            Some(Fault::CloseAfter) => Err(Closed),
            Some(Fault::NoAnswer) => {
                tokio::time::sleep(NEVER).await;
                Err(Closed)
            }
            Some(Fault::CutAnswer) => Ok(cut(answer)),
            _ => Ok(whole(answer)),
        }
    }

    fn draw(&self, method: &Method, is_conditional: bool) -> Option<Fault> {
        if !self.faulty.load(Ordering::SeqCst) {
            return None;
        }
        let fault = {
            let mut decks = self.decks.lock().expect("no panic");
            let Decks { random, usual, conditional } = &mut *decks;
            if is_conditional { conditional.deal(random) } else { usual.deal(random) }
        }?;
        if fault == Fault::CutAnswer && *method != Method::GET {
            return None;
        }
        *self.counts.lock().expect("no panic").entry(fault).or_default() += 1;
        Some(fault)
    }

    fn error(&self) -> StatusCode {
        let busy = self.decks.lock().expect("no panic").random.random_bool(0.5);
        if busy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR }
    }

    async fn forward(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Closed> {
        let request = self.client.request(method.clone(), format!("{}{path}", self.upstream)).headers(headers.clone());
        let answer = request.body(body).send().await.map_err(|_| Closed)?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove("transfer-encoding");
        headers.remove("connection");
        Ok((status, headers, answer.bytes().await.map_err(|_| Closed)?))
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).expect("an answer")
}

fn whole((status, headers, body): (StatusCode, HeaderMap, Bytes)) -> Response<Body> {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// The first half of the body, with the length of the whole.
fn cut((status, headers, body): (StatusCode, HeaderMap, Bytes)) -> Response<Body> {
    if body.is_empty() {
        return whole((status, headers, body));
    }
    let half = body.slice(..body.len() / 2);
    let pieces = futures::stream::iter([Ok::<_, std::io::Error>(half), Err(std::io::ErrorKind::BrokenPipe.into())]);
    let mut answer = Response::new(Body::from_stream(pieces));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer.headers_mut().insert("content-length", body.len().into());
    answer
}
