//! Stores, and the runtime that speaks with them.

use super::told::{reading, told};
use super::{Object, shown};
use crate::error::{Error, Result};
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use url::{Position, Url};

/// Threads that wait for servers, and decrypt what they send.
const THREADS: usize = 2;
/// A server that is not there is not waited for longer.
const CONNECTING: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long has failed.
const SILENT: Duration = Duration::from_secs(30);
/// All of a request: of a part of an output, over a slow line.
const WHOLE: Duration = Duration::from_secs(600);

/// Tries after the first one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// A wrong address or name should be told at once.
    Little,
    /// Much was done already.
    Much,
}

impl Patience {
    fn config(self) -> RetryConfig {
        let (max_retries, seconds) = match self {
            Self::Little => (4, 30),
            Self::Much => (10, 180),
        };
        RetryConfig { max_retries, retry_timeout: Duration::from_secs(seconds), ..RetryConfig::default() }
    }
}

/// A place in a store.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) key: Key,
    /// Without secrets.
    pub(crate) url: String,
}

/// The threads, started when they are first needed.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        // Refused only if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("objects").enable_all().build().map_err(|e| e.to_string())
    });
    started.as_ref().map_err(|e| Error::Usage(format!("threads for objects: {e}")))
}

/// Waits for what a server has to say; not from the runtime's own threads.
pub(crate) fn wait<T>(what: impl Future<Output = T>) -> Result<T> {
    Ok(runtime()?.block_on(what))
}

impl Spot {
    /// Finds the store of a URL. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for a URL that names no object, or settings that do not fit.
    pub(crate) fn of(url: &str, patience: Patience) -> Result<Self> {
        runtime()?;
        let name = shown(Path::new(url));
        let wrong = |why: String| Error::Usage(format!("{name}: {why}"));
        let parsed = Url::parse(url).map_err(|e| wrong(format!("no URL: {e}")))?;
        let key = Key::from_url_path(parsed.path()).map_err(|e| wrong(e.to_string()))?;
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECTING)
            .with_read_timeout(SILENT)
            .with_timeout(WHOLE)
            .with_user_agent(object_store::HeaderValue::from_static("xdump-cut"));
        let retry = patience.config();
        let scheme = ObjectStoreScheme::parse(&parsed).map(|s| s.0);
        let store: Arc<dyn ObjectStore> = match scheme {
            _ if matches!(parsed.scheme(), "http" | "https") => {
                // What is behind the path says who may read it, and goes with each request.
                let mut base = parsed.clone();
                base.set_path("/");
                base.set_fragment(None);
                let options = options.with_allow_http(true);
                let builder = HttpBuilder::new().with_url(base.as_str()).with_client_options(options);
                Arc::new(builder.with_retry(retry).build().map_err(|e| wrong(last(&e)))?)
            }
            Ok(ObjectStoreScheme::AmazonS3) => {
                let allow = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v.eq_ignore_ascii_case("true") || v == "1");
                let options = options.with_allow_http(allow);
                let builder = AmazonS3Builder::from_env().with_url(&parsed[..Position::AfterPath]);
                Arc::new(builder.with_client_options(options).with_retry(retry).build().map_err(|e| wrong(last(&e)))?)
            }
            Ok(ObjectStoreScheme::GoogleCloudStorage) => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(&parsed[..Position::AfterPath]);
                // A service account file may name a server of http://, which only tests have.
                let options = options.with_allow_http(true);
                Arc::new(builder.with_client_options(options).with_retry(retry).build().map_err(|e| wrong(last(&e)))?)
            }
            _ => return Err(wrong("only s3://BUCKET/NAME, gs://BUCKET/NAME, http:// and https:// are known".into())),
        };
        Ok(Self { store, key, url: name })
    }

    /// The same for an object, which has a name.
    pub(crate) fn of_object(url: &str, patience: Patience) -> Result<Self> {
        let spot = Self::of(url, patience)?;
        if spot.key.as_ref().is_empty() {
            return Err(Error::Usage(format!("{} names no object", spot.url)));
        }
        Ok(spot)
    }

    fn object(&self, meta: ObjectMeta) -> Object {
        let base = self.url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
        let scheme = self.url.split_once("://").map_or("", |u| u.0);
        Object {
            url: format!("{scheme}://{base}/{}", super::encoded(meta.location.as_ref())),
            size: meta.size,
            modified: meta.last_modified.into(),
            etag: meta.e_tag,
        }
    }
}

fn last(e: &dyn std::error::Error) -> String {
    std::iter::successors(Some(e), |e| (*e).source()).last().map_or(String::new(), ToString::to_string)
}

pub(super) fn list(url: &str) -> Result<Vec<Object>> {
    let spot = Spot::of(url, Patience::Little)?;
    let prefix = Some(&spot.key).filter(|key| !key.as_ref().is_empty());
    let all: Vec<ObjectMeta> = wait(spot.store.list(prefix).try_collect())?.map_err(|e| reading(&spot.url, &e))?;
    let mut all: Vec<Object> = all.into_iter().map(|meta| spot.object(meta)).collect();
    all.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(all)
}

pub(super) fn head(url: &str) -> Result<Object> {
    let spot = Spot::of_object(url, Patience::Little)?;
    let meta = wait(spot.store.head(&spot.key))?.map_err(|e| reading(&spot.url, &e))?;
    Ok(spot.object(meta))
}

pub(super) fn remove(url: &str) -> Result<()> {
    let spot = Spot::of_object(url, Patience::Little)?;
    match wait(spot.store.delete(&spot.key))? {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(Error::write(&spot.url, told(&spot.url, &e))),
    }
}
