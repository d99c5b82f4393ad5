//! Opens a remote store from its URL and the environment variables of its own tools, with time limits on every
//! request. Keys come from the environment only, and never appear in errors.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::verified_put::VerifiedStore;
use shared::limits;

/// Time limits of requests to a remote store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorePatience {
    /// Longest time for one request and its response.
    pub request: Duration,
    /// Total time for which a failed request is retried.
    pub retry: Duration,
}

impl Default for StorePatience {
    fn default() -> StorePatience {
        StorePatience {
            request: Duration::from_millis(limits::STORE_REQUEST_TIMEOUT_MS),
            retry: Duration::from_millis(limits::STORE_RETRY_MS),
        }
    }
}

impl StorePatience {
    fn retries(self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
            max_retries: limits::STORE_RETRIES_MAX,
            retry_timeout: self.retry,
        }
    }

    fn client(self) -> ClientOptions {
        let connect = Duration::from_millis(limits::STORE_CONNECT_TIMEOUT_MS).min(self.request);
        ClientOptions::new().with_timeout(self.request).with_connect_timeout(connect)
    }
}

/// The protocol that a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    S3,
    Google,
    Azure,
}

impl Cloud {
    /// Returns the names of the variables for location and credentials.
    pub fn variables(self) -> &'static str {
        match self {
            Cloud::S3 => {
                "AWS_ENDPOINT_URL (of a store that is not AWS), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
            }
            Cloud::Google => "GOOGLE_SERVICE_ACCOUNT (the path of a key file)",
            Cloud::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }

    /// Returns the permissions that the key needs.
    pub fn permissions(self) -> &'static str {
        match self {
            Cloud::S3 => {
                "s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject under the prefix"
            }
            Cloud::Google => "the role Storage Object User on the bucket",
            Cloud::Azure => "the role Storage Blob Data Contributor on the container",
        }
    }
}

/// A store on another machine.
pub(super) struct Remote {
    pub cloud: Cloud,
    /// Paths in it are relative to the prefix of the URL.
    pub store: Arc<dyn ObjectStore>,
}

/// Opens the store at `url` without a request. The error is a reason, without the URL.
pub(super) fn open(url: &Url, patience: StorePatience) -> Result<Remote, String> {
    if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("the URL may hold nothing but bucket and prefix; keys belong into environment variables".to_owned());
    }
    let known = "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or abfss://container@account.dfs.core.windows.net/prefix";
    let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(|_| known.to_owned())?;
    let wrong = |e: object_store::Error| e.to_string();
    let (cloud, store): (Cloud, Arc<dyn ObjectStore>) = match scheme {
        ObjectStoreScheme::AmazonS3 if url.username().is_empty() => {
            (Cloud::S3, Arc::new(s3(url, patience).map_err(wrong)?))
        }
        ObjectStoreScheme::GoogleCloudStorage if url.username().is_empty() => {
            let builder = GoogleCloudStorageBuilder::new().with_client_options(patience.client());
            let builder = configured(builder, &["GOOGLE_"], |builder, key, value| {
                key.parse::<GoogleConfigKey>().map_or(builder.clone(), |key| builder.with_config(key, value))
            });
            let builder = builder.with_url(url.as_str()).with_retry(patience.retries());
            (Cloud::Google, Arc::new(builder.build().map_err(wrong)?))
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::new().with_client_options(patience.client());
            let builder = configured(builder, &["AZURE_"], |builder, key, value| {
                key.parse::<AzureConfigKey>().map_or(builder.clone(), |key| builder.with_config(key, value))
            });
            let builder = builder.with_url(url.as_str()).with_retry(patience.retries());
            (Cloud::Azure, Arc::new(builder.build().map_err(wrong)?))
        }
        _ => return Err(known.to_owned()),
    };
    let store =
        PrefixStore::new(VerifiedStore::new(store, patience.retry), Path::parse(prefix).map_err(|e| e.to_string())?);
    Ok(Remote { cloud, store: Arc::new(store) })
}

fn s3(url: &Url, patience: StorePatience) -> object_store::Result<object_store::aws::AmazonS3> {
    let builder = AmazonS3Builder::new().with_client_options(patience.client());
    let mut builder = configured(builder, &["AWS_"], |builder, key, value| {
        key.parse::<AmazonS3ConfigKey>().map_or(builder.clone(), |key| builder.with_config(key, value))
    });
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        // An explicit http:// is taken as permission.
        builder = builder.with_allow_http(true);
    }
    builder.with_url(url.as_str()).with_retry(patience.retries()).build()
}

/// Applies the environment variables of the store to `builder`.
fn configured<B>(builder: B, prefixes: &[&str], with: impl Fn(B, &str, String) -> B) -> B {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os()
        .filter_map(text)
        .filter(|(name, value)| !value.is_empty() && prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .fold(builder, |builder, (name, value)| with(builder, &name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match open(&Url::parse(url).unwrap(), StorePatience::default()) {
            Ok(_) => panic!("{url} was taken"),
            Err(reason) => reason,
        }
    }

    #[test]
    fn keys_in_a_url_are_refused_and_not_repeated() {
        for url in
            ["s3://key:geheim@bucket/x", "s3://bucket/x?sig=geheim", "az://container/x#geheim", "s3://geheim@bucket"]
        {
            let reason = refused(url);
            assert!(!reason.contains("geheim"), "{reason}");
        }
        assert!(refused("s3://a:b@c/d").contains("environment variables"));
    }

    #[test]
    fn other_schemes_are_refused_with_the_supported_ones() {
        for url in ["ftp://host/x", "http://host/x", "memory:///x", "https://host/x"] {
            assert!(refused(url).contains("s3://bucket/prefix"), "{url}");
        }
    }
}
