//! Calls methods of gRPC over HTTP/2: one request message, and one or many response messages.
//!
//! Source of the framing: "gRPC over HTTP2" of the gRPC project. Messages are not compressed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use rustls::{ClientConfig, RootCertStore};
use shared::limits::SPARK_MESSAGE_BYTES_MAX;

use crate::endpoint::{Endpoint, decoded};
use crate::error::{CallError, SparkError, code};

const SERVICE: &str = "/spark.connect.SparkConnectService";
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the response of a call that executes nothing.
const CALL: Duration = Duration::from_secs(60);
/// A connection is checked that was silent for this long, and given up if the check is not answered for as long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes before each message: a flag, and its length.
const PREFIX: usize = 5;
/// Largest list of headers that is read: messages of errors are in one.
const HEADERS_MAX: u32 = 256 << 10;

/// The connection to a server. It is opened when needed.
#[derive(Debug)]
pub struct Channel {
    pub endpoint: Endpoint,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The response messages of a call, as they arrive.
#[derive(Debug)]
pub struct Responses {
    body: Incoming,
    buffered: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Channel {
    /// Returns the channel to an endpoint. Sends nothing yet.
    pub fn new(endpoint: Endpoint) -> Result<Channel, SparkError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(endpoint.origin.starts_with("https:"))?);
        let connector = connector.https_or_http().enable_http2().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .http2_max_header_list_size(HEADERS_MAX)
            .build(connector);
        Ok(Channel { endpoint, client })
    }

    /// Calls a method that has one response.
    pub async fn call<T: Message + Default>(&self, method: &str, request: &impl Message) -> Result<T, CallError> {
        let answer = async {
            let mut responses = self.stream(method, request).await?;
            let missing = || CallError::Unreadable(format!("{method} has no response"));
            responses.next().await?.ok_or_else(missing)
        };
        let late = |_| CallError::Connection(format!("no response for {} s", CALL.as_secs()));
        tokio::time::timeout(CALL, answer).await.map_err(late)?
    }

    /// Calls a method that has many responses.
    pub async fn stream(&self, method: &str, request: &impl Message) -> Result<Responses, CallError> {
        let uri = format!("{}{SERVICE}/{method}", self.endpoint.origin);
        let mut sent = Request::new(Full::new(framed(request)));
        *sent.method_mut() = Method::POST;
        *sent.uri_mut() =
            uri.parse::<hyper::Uri>().map_err(|error| CallError::Unreadable(format!("{uri}: {error}")))?;
        let headers = sent.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for (name, value) in &self.endpoint.headers {
            headers.insert(name, value.clone());
        }
        let failed = |error: hyper_util::client::legacy::Error| CallError::Connection(chain(&error));
        let (head, body) = self.client.request(sent).await.map_err(failed)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(of_http(head.status));
        }
        // A call that ended at once has its status among the headers.
        let ended = status_of(&head.headers).transpose()?;
        let trailers = ended.map(|()| head.headers);
        Ok(Responses { body, buffered: BytesMut::new(), trailers })
    }
}

impl Responses {
    /// Returns the next message; `None`: the call has ended well.
    pub async fn next<T: Message + Default>(&mut self) -> Result<Option<T>, CallError> {
        loop {
            if let Some(message) = unframed(&mut self.buffered)? {
                let unreadable = |error: prost::DecodeError| CallError::Unreadable(error.to_string());
                return T::decode(message).map(Some).map_err(unreadable);
            }
            let Some(frame) = self.body.frame().await else {
                let ended = self.trailers.as_ref().and_then(status_of);
                let lost = || Err(CallError::Connection("the response was cut off".to_owned()));
                return ended.unwrap_or_else(lost).map(|()| None);
            };
            let frame = frame.map_err(|error| CallError::Connection(chain(&error)))?;
            match frame.into_data() {
                Ok(data) => self.buffered.put(data),
                Err(frame) => self.trailers = frame.into_trailers().ok().or(self.trailers.take()),
            }
        }
    }
}

/// Returns how certificates are checked; a connection without TLS needs none.
fn tls(is_used: bool) -> Result<ClientConfig, SparkError> {
    let unusable = |reason: String| SparkError::Settings(format!("TLS cannot be used: {reason}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| unusable(error.to_string()))?;
    let trusting = match is_used {
        true => versions.with_native_roots().map_err(|error| unusable(error.to_string()))?,
        false => versions.with_root_certificates(RootCertStore::empty()),
    };
    Ok(trusting.with_no_client_auth())
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("plans are limited to far less than 4 GiB"));
    message.encode(&mut bytes).expect("memory grows as needed");
    bytes.freeze()
}

/// Takes a complete message from the front of the received bytes.
fn unframed(buffered: &mut BytesMut) -> Result<Option<Bytes>, CallError> {
    if buffered.len() < PREFIX {
        return Ok(None);
    }
    let length = u32::from_be_bytes([buffered[1], buffered[2], buffered[3], buffered[4]]) as usize;
    if buffered[0] != 0 || length > SPARK_MESSAGE_BYTES_MAX {
        let reason =
            format!("a message of {length} bytes (at most {SPARK_MESSAGE_BYTES_MAX} uncompressed ones are read)");
        return Err(CallError::Unreadable(reason));
    }
    if buffered.len() < PREFIX + length {
        return Ok(None);
    }
    buffered.advance(PREFIX);
    Ok(Some(buffered.split_to(length).freeze()))
}

/// Returns the status among headers or trailers; `None`: there is none.
fn status_of(headers: &HeaderMap) -> Option<Result<(), CallError>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let found = text("grpc-status")?.parse().unwrap_or(u32::MAX);
    let message = || decoded(text("grpc-message").unwrap_or("no message"));
    Some(if found == code::OK { Ok(()) } else { Err(CallError::Status { code: found, message: message() }) })
}

/// A proxy in front of the server answered.
fn of_http(status: StatusCode) -> CallError {
    let message = format!("HTTP status {status}");
    match status {
        StatusCode::UNAUTHORIZED => CallError::Status { code: code::UNAUTHENTICATED, message },
        StatusCode::FORBIDDEN => CallError::Status { code: code::PERMISSION_DENIED, message },
        StatusCode::NOT_FOUND => CallError::Status { code: code::UNIMPLEMENTED, message },
        _ => CallError::Connection(message),
    }
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text += &format!(": {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::KeyValue;

    #[test]
    fn messages_are_taken_apart_wherever_they_are_cut() {
        let sent = KeyValue { key: "a".to_owned(), value: Some("b".to_owned()) };
        let both = [framed(&sent), framed(&sent)].concat();
        for at in 0..both.len() {
            let mut buffered = BytesMut::new();
            let mut found = Vec::new();
            for part in [&both[..at], &both[at..]] {
                buffered.put(part);
                while let Some(message) = unframed(&mut buffered).expect("right") {
                    found.push(KeyValue::decode(message).expect("a message"));
                }
            }
            assert_eq!((found, buffered.len()), (vec![sent.clone(), sent.clone()], 0), "cut at {at}");
        }
    }

    #[test]
    fn huge_and_compressed_messages_are_refused() {
        for bytes in [[1, 0, 0, 0, 1], [0, 0xff, 0xff, 0xff, 0xff]] {
            assert!(unframed(&mut BytesMut::from(&bytes[..])).is_err());
        }
    }

    #[test]
    fn a_status_is_read_with_its_message() {
        let mut headers = HeaderMap::new();
        assert!(status_of(&headers).is_none());
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(status_of(&headers).is_some_and(|status| status.is_ok()));
        headers.insert("grpc-status", HeaderValue::from_static("13"));
        headers.insert("grpc-message", HeaderValue::from_static("[A] 50%25"));
        let Some(Err(CallError::Status { code: 13, message })) = status_of(&headers) else { panic!("not read") };
        assert_eq!(message, "[A] 50%");
    }
}
