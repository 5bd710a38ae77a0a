//! Objects by URL: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, and `http://` or `https://`, of which only reading is known.
//!
//! Which server, and who asks, is told by the environment, with the names that the stores' own tools know (`AWS_ENDPOINT_URL`,
//! `AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT` and so on: object_store's documentation has all of them). Without the feature
//! `objects`, all functions here give an error that says so.

#[cfg(feature = "objects")]
mod put;
#[cfg(feature = "objects")]
pub(crate) mod store;
#[cfg(feature = "objects")]
mod told;

#[cfg(feature = "objects")]
pub(crate) use put::{Free, begin, is_free, put};
#[cfg(feature = "objects")]
pub(crate) use told::{may_pass, told};

use crate::error::Result;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a URL begins with.
const SCHEMES: [&str; 4] = ["s3://", "gs://", "http://", "https://"];

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub url: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
    /// What changes with its content, if the server tells.
    pub etag: Option<String>,
}

/// Whether a name is one of an object, and not of a file.
pub fn is_url(name: &Path) -> bool {
    url(name).is_some()
}

/// The name as a URL, if it is one.
pub(crate) fn url(name: &Path) -> Option<&str> {
    let name = name.to_str()?;
    let begins = |scheme: &str| name.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    SCHEMES.into_iter().any(begins).then_some(name)
}

/// A name as it may be shown: a URL without what may be secret in it, user, password and query.
pub fn shown(name: &Path) -> String {
    let Some(url) = url(name) else { return name.display().to_string() };
    let (url, query) = url.split_once(['?', '#']).map_or((url, ""), |(url, _)| (url, "?..."));
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}{query}")
}

/// A name below a folder or a URL, in which what has a meaning of its own is told by its number (`%23`).
///
/// # Errors
/// [`crate::Error::Usage`] for a name that is no UTF-8 below a URL.
pub fn below(top: &Path, name: &Path) -> Result<PathBuf> {
    let Some(url) = url(top) else { return Ok(top.join(name)) };
    let text = name.to_str().ok_or_else(|| {
        crate::Error::Usage(format!("{}: the name is no UTF-8, and objects have no others", name.display()))
    })?;
    Ok(format!("{}/{}", url.trim_end_matches('/'), encoded(text)).into())
}

/// A path as it stands in a URL (RFC 3986, `pchar` and slashes).
pub(crate) fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// All objects whose names begin with the URL's path and a slash, in order of their URLs; of `s3://` and `gs://`.
///
/// # Errors
/// [`crate::Error::Usage`] for no such URL, or without the feature; [`crate::Error::Read`] with what the server says.
pub fn list(url: &str) -> Result<Vec<Object>> {
    #[cfg(feature = "objects")]
    return store::list(url);
    #[cfg(not(feature = "objects"))]
    Err(without(url))
}

/// What the server says of one object.
///
/// # Errors
/// As [`list`].
pub fn head(url: &str) -> Result<Object> {
    #[cfg(feature = "objects")]
    return store::head(url);
    #[cfg(not(feature = "objects"))]
    Err(without(url))
}

/// Whether there is an object of this name, as far as the server tells: those who may only write are not told.
///
/// # Errors
/// [`crate::Error::Usage`] as [`list`], [`crate::Error::Write`] with what the server says.
pub fn exists(url: &str) -> Result<bool> {
    #[cfg(feature = "objects")]
    return put::exists(&store::Spot::of_object(url, store::Patience::Little)?);
    #[cfg(not(feature = "objects"))]
    Err(without(url))
}

/// Removes an object; one that is not there is as good.
///
/// # Errors
/// As [`exists`].
pub fn remove(url: &str) -> Result<()> {
    #[cfg(feature = "objects")]
    return store::remove(url);
    #[cfg(not(feature = "objects"))]
    Err(without(url))
}

/// The error of a program that has none of this.
#[cfg(not(feature = "objects"))]
pub(crate) fn without(url: &str) -> crate::Error {
    let url = shown(Path::new(url));
    let way = "build it with cargo build --release --features objects, or fetch the object first";
    crate::Error::Usage(format!("{url} is a URL, and this program was built without the feature objects: {way}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_has_a_url_of_its_own() {
        let of = |name: &str| below(Path::new("s3://b/top/"), Path::new(name)).unwrap().display().to_string();
        assert_eq!(of("a/v m#1"), "s3://b/top/a/v%20m%231");
        assert_eq!(
            (of("%2e%2e/x?y"), of("\u{e9}")),
            ("s3://b/top/%252e%252e/x%3Fy".into(), "s3://b/top/%C3%A9".into())
        );
        assert_eq!(below(Path::new("/out"), Path::new("a#b")).unwrap(), Path::new("/out/a#b"));
        let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
        assert!(below(Path::new("s3://b"), Path::new(odd)).is_err());
    }

    #[test]
    fn urls_and_what_is_shown_of_them() {
        for name in ["s3://b/k", "gs://b/k/l", "http://h:8/x", "HTTPS://h/x?y"] {
            assert!(is_url(Path::new(name)), "{name}");
        }
        for name in ["s3:/b/k", "s3", "./s3://b", "vmcore", "", "ftp://h/x", "-", "é3://b"] {
            assert!(!is_url(Path::new(name)) && shown(Path::new(name)) == name, "{name}");
        }
        let said = |name: &str| shown(Path::new(name));
        assert_eq!(said("s3://b/a/k"), "s3://b/a/k");
        assert_eq!(said("https://me:secret@h:8/x/y?X-Amz-Signature=1&z#f"), "https://h:8/x/y?...");
        assert_eq!(said("http://h"), "http://h");
        assert_eq!(said("http://h/a@b"), "http://h/a@b");
    }

    #[cfg(not(feature = "objects"))]
    #[test]
    fn without_the_feature_it_is_said() {
        let url = "s3://b/k";
        let errors = [list(url).err(), head(url).err(), exists(url).err(), remove(url).err()];
        for e in errors {
            let e = e.unwrap();
            assert!(e.kind() == crate::error::Kind::Usage && e.to_string().contains("--features objects"), "{e}");
        }
    }
}
