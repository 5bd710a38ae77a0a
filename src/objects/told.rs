//! What a server says, in the words of this program: what went wrong, what the server calls it, and the way out.

use crate::error::Error;
use object_store::Error as StoreError;
use std::error::Error as _;
use std::io;

/// Characters of a server's own words, at most.
const MOST: usize = 200;
const AWS: &str =
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN say who asks, AWS_SKIP_SIGNATURE=true nobody";
const GOOGLE: &str = "GOOGLE_SERVICE_ACCOUNT names the file of who asks, GOOGLE_SKIP_SIGNATURE=true nobody";

/// The same as an error of the operating system; `url` is the one that was asked for.
pub(crate) fn told(url: &str, e: &StoreError) -> io::Error {
    let said = words(e);
    let keys = match url.split_once("://").map(|u| u.0) {
        Some("s3") => AWS,
        Some("gs") => GOOGLE,
        _ => "a URL that is signed may have expired",
    };
    let (kind, text) = match e {
        StoreError::NotFound { .. } => (io::ErrorKind::NotFound, format!("the server has no such object ({said})")),
        StoreError::PermissionDenied { .. } => {
            (io::ErrorKind::PermissionDenied, format!("the server refuses ({said}); {keys}"))
        }
        StoreError::Unauthenticated { .. } => {
            (io::ErrorKind::PermissionDenied, format!("the server does not know who asks ({said}); {keys}"))
        }
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            (io::ErrorKind::Other, format!("the object has changed meanwhile ({said}); start again"))
        }
        StoreError::NotSupported { .. } => {
            (io::ErrorKind::Unsupported, format!("the server gives no ranges ({said}); fetch the object first"))
        }
        _ if status(e).is_some() => (io::ErrorKind::Other, said),
        _ => {
            let kind = of_system(e).map_or(io::ErrorKind::Other, io::Error::kind);
            (kind, format!("{said}; {}", endpoint(url)))
        }
    };
    io::Error::new(kind, text)
}

/// Where the server's address comes from.
fn endpoint(url: &str) -> &'static str {
    match url.split_once("://").map(|u| u.0) {
        Some("s3") => "AWS_ENDPOINT_URL and AWS_REGION name the server, and one of http:// needs AWS_ALLOW_HTTP=true",
        Some("gs") => "the file that GOOGLE_SERVICE_ACCOUNT names can name another server",
        _ => "is that the server?",
    }
}

/// The same as an error of this program.
pub(super) fn reading(url: &str, e: &StoreError) -> Error {
    let e = told(url, e);
    let what = "the object";
    if e.kind() == io::ErrorKind::Unsupported {
        return Error::Usage(e.to_string());
    }
    Error::read(what, e)
}

/// Whether another try might help which the library does not make itself: the connection broke in the middle of the data.
pub(crate) fn may_pass(e: &StoreError) -> bool {
    matches!(e, StoreError::Generic { .. })
}

/// The operating system's error behind it.
fn of_system(e: &StoreError) -> Option<&io::Error> {
    let mut all = std::iter::successors(e.source(), |e| (*e).source());
    all.find_map(|e| e.downcast_ref::<io::Error>().filter(|e| e.raw_os_error().is_some()))
}

/// It, and what is behind it.
fn chain(e: &StoreError) -> Vec<String> {
    std::iter::successors(e.source(), |e| (*e).source()).map(ToString::to_string).collect()
}

/// The server's answer, if there was one that is an error: its status, and its text.
fn status(e: &StoreError) -> Option<String> {
    chain(e).iter().rev().find_map(|text| Some(text.split_once("non-2xx status code: ")?.1.to_owned()))
}

/// What the server said, or the innermost error, without URLs, which may have secrets in them.
fn words(e: &StoreError) -> String {
    let text = match status(e) {
        Some(answer) => {
            let (status, body) = answer.split_once(": ").unwrap_or((answer.as_str(), ""));
            let code = [tag(body, "Code"), tag(body, "Message")].into_iter().flatten().collect::<Vec<_>>().join(": ");
            if code.is_empty() { status.to_owned() } else { format!("{status}, {code}") }
        }
        // Outer ones have the URL in them.
        None => chain(e).last().cloned().unwrap_or_else(|| e.to_string()),
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    text.trim().to_owned()
}

/// The text of an element of a short XML answer.
fn tag<'t>(xml: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|r| r.0).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("Error performing GET http://h/k?secret=1 in 1ms - {0}")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("Server returned non-2xx status code: {0}")]
    struct Inner(&'static str);

    #[test]
    fn codes_of_servers_without_their_urls() {
        let of = |body| StoreError::NotFound { path: "k".into(), source: Box::new(Outer(Inner(body))) };
        let said = |body| told("s3://b/k", &of(body)).to_string();
        let xml = "404 Not Found: <?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>";
        assert_eq!(said(xml), "the server has no such object (404 Not Found, NoSuchKey: gone)");
        assert_eq!(said("404 Not Found: "), "the server has no such object (404 Not Found)");
        let refused = |url| {
            let source = Box::new(Outer(Inner("403 Forbidden: no\n")));
            told(url, &StoreError::PermissionDenied { path: "k".into(), source }).to_string()
        };
        assert!(refused("s3://b/k").contains("AWS_ACCESS_KEY_ID") && refused("gs://b/k").contains("GOOGLE_"));
        assert!(!refused("https://h/k?secret=1").contains("secret"));
    }
}
