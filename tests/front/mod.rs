//! Servers for the tests of objects, started on free ports, and what stands before them: it counts what goes through, and can
//! fail in every way that servers and networks do. It knows nothing of the program under test.

use super::support::tools::tool;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const KEY: &str = "AKIATESTTESTTEST";
pub(crate) const SECRET: &str = "a secret of tests";

/// A server in a process of its own, which ends with this.
pub(crate) struct Server {
    child: Child,
    port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Real S3, of the folders in `root` as buckets.
    pub(crate) fn s3(root: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(tool("s3s-fs"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", KEY, "--secret-key", SECRET]);
        Self::start(command.arg(root), port)
    }

    /// Plain HTTP, with ranges.
    pub(crate) fn http(root: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("busybox");
        Self::start(command.args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"]).arg(root), port)
    }

    fn start(command: &mut Command, port: u16) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}: run .ci/tools"));
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered.
    Answered,
    /// Answered with this status instead.
    Status(u16),
    /// The connection ends before an answer.
    Dropped,
    /// ... and in the middle of it.
    Broken,
    /// Answered late.
    Slow,
}

type Judge = Box<dyn FnMut(u64, &str) -> Fate + Send>;

/// What stands before a server.
pub(crate) struct Front {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    requests: AtomicU64,
    /// Bytes of answers' bodies to reads, as they went out.
    bytes: AtomicU64,
    failed: AtomicU64,
    gone: AtomicBool,
    judge: Mutex<Judge>,
}

impl Front {
    pub(crate) fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: server.port,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            judge: Mutex::new(Box::new(|_, _| Fate::Answered)),
        });
        let all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if all.gone.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&all);
                std::thread::spawn(move || {
                    let _ = shared.serve(client);
                });
            }
        });
        Self { port, shared }
    }

    /// Decides on each request from now on, by its number, from 1, and its first line.
    pub(crate) fn judge(&self, judge: impl FnMut(u64, &str) -> Fate + Send + 'static) {
        self.shared.requests.store(0, Ordering::SeqCst);
        self.shared.bytes.store(0, Ordering::SeqCst);
        self.shared.failed.store(0, Ordering::SeqCst);
        *self.shared.judge.lock().unwrap() = Box::new(judge);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A head of a request or an answer, up to the empty line.
fn head(from: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if from.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The same with the connection to be closed behind it: one request for each.
fn closing(head: &str) -> String {
    let lines = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    lines.chain(["Connection: close", "", ""]).collect::<Vec<_>>().join("\r\n")
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let asked = head(&mut client)?;
        let mut body = vec![0; field(&asked, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0)];
        if field(&asked, "expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        client.read_exact(&mut body).ok()?;
        let first = asked.lines().next()?.to_owned();
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let fate = (self.judge.lock().unwrap())(number, &first);
        if fate != Fate::Answered {
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
        match fate {
            Fate::Status(status) => {
                let text = "<Error><Code>SlowDown</Code><Message>as the test wants it</Message></Error>";
                let answer = format!(
                    "HTTP/1.1 {status} No\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                );
                return client.write_all(answer.as_bytes()).ok();
            }
            Fate::Dropped => return client.shutdown(Shutdown::Both).ok(),
            Fate::Slow => std::thread::sleep(Duration::from_millis(300)),
            Fate::Answered | Fate::Broken => {}
        }
        let mut server = TcpStream::connect(("127.0.0.1", self.server)).ok()?;
        server.write_all(closing(&asked).as_bytes()).ok()?;
        server.write_all(&body).ok()?;
        let answer = head(&mut server)?;
        let length: Option<u64> = field(&answer, "content-length").and_then(|n| n.parse().ok());
        client.write_all(closing(&answer).as_bytes()).ok()?;
        let (mut sent, mut block) = (0, vec![0; 64 << 10]);
        let most = if fate == Fate::Broken { length.unwrap_or(0) / 2 } else { u64::MAX };
        while sent < most && !(first.starts_with("HEAD") || length == Some(sent)) {
            let n = server.read(&mut block).ok()?.min((most - sent) as usize);
            if n == 0 {
                break;
            }
            // Before it goes out: whoever has all of it may look at the sum.
            if first.starts_with("GET") {
                self.bytes.fetch_add(n as u64, Ordering::SeqCst);
            }
            client.write_all(&block[..n]).ok()?;
            sent += n as u64;
        }
        client.shutdown(Shutdown::Both).ok()
    }
}
