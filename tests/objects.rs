//! Dumps in object stores: cuts of them equal those of files, byte for byte, from a real S3 server and by plain HTTP, with a
//! front before it that counts what is fetched, and fails as networks do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod front;
#[path = "support/mod.rs"]
mod support;
mod synth;

use front::{Fate, Front, KEY, SECRET, Server};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::fixtures::{self, Fixture};
use support::forms::frames;
use support::tools::{Ran, run, scratch};
use xdump_cut::cut;
use xdump_cut::objects;
use xdump_cut::options::Options;
use xdump_cut::pipeline::Silent;
use xdump_cut::plan::level::Level;
use xdump_cut::sink::{Mode, Output};
use xdump_cut::source::holes::Holes;
use xdump_cut::source::{FileSource, ReadAt};
use xdump_cut::units::FileOffset;

const BUCKET: &str = "dumps";

fn fixture() -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == "xen-4.17-linux-6.12-panic").expect("the panic fixture of testdata")
}

/// A store of one test, in a folder of its own, with a front before it.
struct Store {
    folder: PathBuf,
    front: Front,
    _server: Server,
}

impl Store {
    fn new(name: &str) -> Self {
        let folder = scratch().join(name);
        std::fs::create_dir_all(folder.join(BUCKET)).unwrap();
        let server = Server::s3(&folder);
        Self { front: Front::of(&server), folder, _server: server }
    }

    /// The file that is an object of this name.
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(BUCKET).join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.file(name), bytes).unwrap();
        url(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        environment(&mut command, self.front.port);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.command().args(args), Duration::from_secs(120))
    }

    /// Cuts, which must work; what it printed.
    fn cut(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert!(ran.status.success(), "{args:?}: {}\n{}", ran.stdout, ran.stderr);
        ran.stdout
    }
}

fn environment(command: &mut Command, port: u16) {
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"));
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    command.env("AWS_REGION", "us-east-1").env("AWS_ALLOW_HTTP", "true");
    // What stands between is none of a test's own.
    ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].iter().for_each(|name| {
        command.env_remove(name);
    });
}

fn url(name: &str) -> String {
    format!("s3://{BUCKET}/{name}")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A cut of a file, for comparison.
fn local(name: &str, args: &[&str], input: &Path) -> Vec<u8> {
    let out = scratch().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    let ran = run(command.args(args).arg(input).arg(&out), Duration::from_secs(120));
    assert!(ran.status.success(), "{args:?}: {}", ran.stderr);
    std::fs::read(out).unwrap()
}

fn synthetic() -> Vec<u8> {
    synth::Machine::new().build().bytes
}

/// Of a file: which pages of it are read.
#[derive(Debug)]
struct Counting(FileSource, Mutex<BTreeSet<u64>>);

impl ReadAt for Counting {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        self.1.lock().unwrap().extend(at.0 / 4096..(at.0 + buf.len() as u64).div_ceil(4096));
        self.0.read_exact_at(at, buf)
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        Holes::none()
    }
}

/// Bytes of a file that a cut of it reads, each once; of no object holes are known.
fn read_by_a_cut(file: &Path, level: u8) -> u64 {
    let source = Counting(FileSource::new(std::fs::File::open(file).unwrap()).unwrap(), Mutex::default());
    let options = Options { level: Level::new(level).unwrap(), level_given: true, ..Options::default() };
    let out = Output::pipe(Mode::Positions, io::sink()).unwrap();
    cut::cut(&source, &options, out, &Silent).unwrap();
    source.1.into_inner().unwrap().len() as u64 * 4096
}

fn fetched(report: &str) -> (u64, u64, u64) {
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    let number = |name: &str| report["source"]["fetched"][name].as_u64().unwrap();
    (number("bytes"), number("requests"), number("of_bytes"))
}

/// By plain HTTP: the real dump, of which little more is fetched than a cut of the file reads.
#[test]
fn by_plain_http_only_what_a_cut_needs() {
    let vmcore = &fixture().vmcore;
    let server = Server::http(vmcore.parent().unwrap());
    let front = Front::of(&server);
    let url = format!("http://127.0.0.1:{}/{}", front.port, vmcore.file_name().unwrap().to_str().unwrap());
    for (level, most) in [("31", 0.25), ("1", 0.4)] {
        front.judge(|_, _| Fate::Answered);
        let out = scratch().join(format!("http.{level}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
        environment(&mut command, 1);
        let ran = run(command.args(["-d", level, "--report", "json", &url]).arg(&out), Duration::from_secs(120));
        assert!(ran.status.success(), "{}", ran.stderr);
        assert!(std::fs::read(&out).unwrap() == local(&format!("file.{level}"), &["-d", level], vmcore), "-d {level}");
        let (bytes, requests, size) = fetched(&ran.stdout);
        assert_eq!(size, vmcore.metadata().unwrap().len());
        // What was under way when the cut was done is not in the report.
        assert!((bytes..bytes + (2 << 20)).contains(&front.bytes()), "{bytes} and {}", front.bytes());
        let read = read_by_a_cut(vmcore, level.parse().unwrap());
        eprintln!("-d {level}: {bytes} bytes of {size} in {requests} requests; a cut of the file reads {read}");
        assert!(bytes < (size as f64 * most) as u64, "-d {level}: {bytes} of {size}");
        assert!(bytes < read * 3 / 2, "-d {level}: {bytes} where a cut of the file reads {read}");
    }
}

/// From S3: the real dump in seekable zstd, and a synthetic one as it is, in both formats and levels.
#[test]
fn from_s3_as_from_a_file() {
    let store = Store::new("real");
    let packed = frames(&std::fs::read(&fixture().vmcore).unwrap(), 128 << 10, true);
    let plain = synthetic();
    // The server sums all of an object up for each request, which takes its time: not each with each.
    type Case<'c> = (&'c str, &'c [u8], &'c [&'c [&'c str]]);
    let cases: [Case<'_>; 3] = [
        ("vmcore.zst", &packed, &[&["-d", "31"], &["-d", "1"]]),
        ("synthetic", &plain, &[&["-d", "31", "-E"]]),
        ("synthetic.zst", &frames(&plain, 32 << 10, true), &[&["-d", "1", "-E"], &["-d", "31"], &["-d", "1"]]),
    ];
    for (name, bytes, all) in cases {
        let url = store.put(name, bytes);
        for options in all.iter().copied() {
            store.front.judge(|_, _| Fate::Answered);
            let out = scratch().join("from-s3");
            let report = store.cut(&[options, &["-f", "--report", "json", &url, text(&out)]].concat());
            let want = local("from-file", &[options, &["-f"]].concat(), &store.file(name));
            assert!(std::fs::read(&out).unwrap() == want, "{name} {options:?}");
            let (bytes, requests, size) = fetched(&report);
            eprintln!("{name} {options:?}: {bytes} bytes of {size} in {requests} requests");
            assert_eq!(size, store.file(name).metadata().unwrap().len());
            // What was under way when the cut was done is not in the report.
            let counted = store.front.bytes();
            assert!((bytes..bytes + (2 << 20)).contains(&counted), "{bytes} and {counted}");
            if name == "vmcore.zst" && options == ["-d", "31"] {
                assert!(bytes < size * 2 / 3, "{bytes} of {size}");
            }
        }
    }
    assert_eq!(store.cut(&["log", &url("vmcore.zst")]), store.cut(&["log", text(&fixture().vmcore)]));
}

/// What must be unpacked is streamed, parts of a split dump are read together, and the other commands read objects too.
#[test]
fn all_forms_and_commands() {
    let store = Store::new("forms");
    let plain = synthetic();
    let path = store.file("plain");
    let url = store.put("plain", &plain);
    let want = local("forms-want", &[], &path);
    let gz = {
        let out = run_through("gzip", &["-1c", text(&path)]);
        store.put("vmcore.gz", &out)
    };
    let zst = store.put("vmcore.zst", &zstd::encode_all(&plain[..], 1).unwrap());
    let out = scratch().join("forms-out");
    for input in [&gz, &zst] {
        store.cut(&["-f", input, text(&out)]);
        assert!(std::fs::read(&out).unwrap() == want, "{input}");
    }
    // Small memory: less is fetched beforehand, and nothing else changes.
    let small = store.put("small.zst", &frames(&plain, 32 << 10, true));
    store.cut(&["-f", "--memory", "16M", &small, text(&out)]);
    assert!(std::fs::read(&out).unwrap() == want);
    store.cut(&["-q", "--split", "2", text(&path), &self::url("part")]);
    let both = [self::url("part.2"), self::url("part.1")];
    store.cut(&["-f", "--split", &both[0], &both[1], text(&out)]);
    let files = [store.file("part.1"), store.file("part.2")];
    store.cut(&["-f", "--split", text(&files[0]), text(&files[1]), text(&scratch().join("forms-local"))]);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(scratch().join("forms-local")).unwrap());
    store.cut(&["-q", "--all-domains", text(&path), &self::url("all")]);
    assert!(std::fs::read(store.file("all/dom0.kdump")).unwrap() == want);
    assert_eq!(store.cut(&["info", &url]), store.cut(&["info", text(&path)]));
}

fn run_through(program: &str, args: &[&str]) -> Vec<u8> {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}: run .ci/tools"));
    assert!(out.status.success(), "{program} {args:?}");
    out.stdout
}

/// Outputs in S3 are the same as files, appear as a whole, and are not written over unless they may be.
#[test]
fn to_s3_as_to_a_file() {
    let store = Store::new("outputs");
    let vmcore = text(&fixture().vmcore).to_owned();
    // Large enough for several parts, and small enough for none.
    for (name, options) in [
        ("large.kdump", &["-d", "1"][..]),
        ("large.elf", &["-d", "1"]),
        ("dom0.kdump", &[]),
        ("dom0.elf.zst", &[]),
        ("dom0.flat", &["-F"]),
        ("dom0.verified", &["--verify", "--digest"]),
    ] {
        let out = url(name);
        store.cut(&[options, &[&vmcore, &out]].concat());
        let want = local(&format!("want-{name}"), options, Path::new(&vmcore));
        assert!(std::fs::read(store.file(name)).unwrap() == want, "{name}");
        let again = store.run(&[options, &[&vmcore, &out]].concat());
        assert!(again.stderr.contains("exists; give -f"), "{}", again.stderr);
        assert_eq!(again.status.code(), Some(2));
        store.cut(&[options, &["-f", &vmcore, &out]].concat());
    }
    let ran = store.run(&["-L", "2M", &vmcore, &url("short.kdump")]);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("s3://dumps/short.kdump.incomplete has"), "{}", ran.stderr);
    assert!(store.file("short.kdump.incomplete").exists() && !store.file("short.kdump").exists());
    // Parts of it are answered with errors, and come all the same.
    store
        .front
        .judge(|n, first| if first.starts_with("PUT") && n % 2 == 0 { Fate::Status(503) } else { Fate::Answered });
    store.cut(&["-f", "-d", "1", &vmcore, &url("large.kdump")]);
    assert!(store.front.failed() > 0);
    assert!(std::fs::read(store.file("large.kdump")).unwrap() == local("want-again", &["-d", "1"], Path::new(&vmcore)));
    // Nothing is left in the temporary folder.
    let tmp = scratch().join("tmp-dir");
    std::fs::create_dir_all(&tmp).unwrap();
    store.front.judge(|_, _| Fate::Answered);
    store.cut(&["--tmp-dir", text(&tmp), &vmcore, &url("tmp.kdump")]);
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
    // ... unless the server refuses in the end.
    store.front.judge(|_, first| if first.starts_with("PUT") { Fate::Status(403) } else { Fate::Answered });
    let ran = store.run(&["--tmp-dir", text(&tmp), &vmcore, &url("refused.kdump")]);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("the cut is complete in"), "{}", ran.stderr);
    let kept: Vec<_> = std::fs::read_dir(&tmp).unwrap().flatten().map(|e| e.path()).collect();
    let want = std::fs::read(scratch().join("want-dom0.kdump")).unwrap();
    assert!(kept.len() == 1 && std::fs::read(&kept[0]).unwrap() == want);
    assert!(!store.file("refused.kdump").exists());
}

/// Errors of servers, broken and lost connections, and delays change nothing.
#[test]
fn faults_change_nothing() {
    let store = Store::new("faults");
    let url = store.put("vmcore.zst", &frames(&synthetic(), 32 << 10, true));
    let want = local("faults-want", &["-d", "1"], &store.file("vmcore.zst"));
    let fates: [fn(u64) -> Fate; 3] = [
        |n| if n % 8 == 1 { Fate::Status(503) } else { Fate::Answered },
        |n| if n % 4 == 1 { Fate::Broken } else { Fate::Answered },
        |n| match n % 40 {
            0 => Fate::Slow,
            10 => Fate::Broken,
            20 => Fate::Status(500),
            30 => Fate::Dropped,
            _ => Fate::Answered,
        },
    ];
    for (number, fate) in fates.into_iter().enumerate() {
        store.front.judge(move |n, _| fate(n));
        let out = scratch().join("faults-out");
        store.cut(&["-f", "-d", "1", &url, text(&out)]);
        assert!(store.front.failed() > 1, "{number}: {} failed", store.front.failed());
        assert!(std::fs::read(&out).unwrap() == want, "{number}");
    }
}

/// An object that becomes another one while it is read: an error, and no output.
#[test]
fn an_object_that_changes_is_an_error() {
    let store = Store::new("changes");
    let (first, mut other) = (synthetic(), synthetic());
    let middle = other.len() / 2;
    other[middle] ^= 1;
    for after in [3, 8, 12] {
        let url = store.put("vmcore", &first);
        let (file, other, done) = (store.file("vmcore"), other.clone(), AtomicBool::new(false));
        store.front.judge(move |n, _| {
            if n > after && !done.swap(true, Ordering::SeqCst) {
                // At once, as stores do.
                let new = file.with_extension("new");
                std::fs::write(&new, &other).unwrap();
                std::fs::rename(&new, &file).unwrap();
            }
            Fate::Answered
        });
        let out = scratch().join(format!("changed-{after}"));
        let ran = store.run(&[&url, text(&out)]);
        assert!(ran.stderr.contains("the object has changed meanwhile"), "{after}: {}", ran.stderr);
        assert_eq!(ran.status.code(), Some(3));
        assert!(!out.exists() && !out.with_extension("incomplete").exists());
        assert!(store.front.requests() > after);
    }
}

/// What is wrong is said, with the way out, and without secrets.
#[test]
fn messages() {
    let store = Store::new("messages");
    let url = store.put("vmcore", &synthetic());
    let out = scratch().join("messages-out");
    let said = |command: &mut Command, status: i32, words: &[&str]| {
        let ran = run(command.arg(&out), Duration::from_secs(60));
        assert_eq!(ran.status.code(), Some(status), "{}", ran.stderr);
        words.iter().for_each(|word| assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr));
        assert!(!ran.stderr.contains(SECRET) && !ran.stderr.contains("hidden"), "{}", ran.stderr);
        assert!(!out.exists());
    };
    let gone = self::url("gone");
    said(store.command().arg(&gone), 3, &["xdump-cut: s3://dumps/gone: ", "has no such object", "404", "NoSuchKey"]);
    said(store.command().arg("s3://nowhere/vmcore"), 3, &["s3://nowhere/vmcore", "has no such object"]);
    let mut wrong = store.command();
    said(wrong.env("AWS_SECRET_ACCESS_KEY", "hidden").arg(&url), 3, &["refuses", "403", "AWS_ACCESS_KEY_ID"]);
    // Nobody listens there.
    let mut nobody = store.command();
    said(nobody.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").arg(&url), 3, &["refused", "AWS_ENDPOINT_URL"]);
    let mut plain = store.command();
    said(plain.env("AWS_ALLOW_HTTP", "false").arg(&url), 3, &["AWS_ALLOW_HTTP"]);
    said(store.command().arg("s3://dumps"), 2, &["names no object"]);
    store.put("empty", b"");
    said(store.command().arg(self::url("empty")), 1, &["empty"]);
    let signed = format!("http://127.0.0.1:{}/dumps/vmcore?X-Amz-Signature=hidden", store.front.port);
    store.front.judge(|_, _| Fate::Status(403));
    said(store.command().arg(&signed), 3, &["/dumps/vmcore?...", "refuses", "may have expired"]);
    // The server goes while it is read.
    store.front.judge(|n, _| if n > 6 { Fate::Status(500) } else { Fate::Answered });
    said(store.command().arg(&url), 3, &["reading s3://dumps/vmcore", "500", "SlowDown"]);
    store.front.judge(|_, _| Fate::Answered);
    // Before anything is cut.
    let to = |out: &str, env: (&str, &str), status, words: &[&str]| {
        let ran = run(
            store.command().env(env.0, env.1).args([&store.file("vmcore"), Path::new(out)]),
            Duration::from_secs(60),
        );
        assert_eq!(ran.status.code(), Some(status), "{}", ran.stderr);
        words.iter().for_each(|word| assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr));
        assert!(!ran.stderr.contains("writing pages"), "{}", ran.stderr);
    };
    to("s3://dumps/out", ("AWS_SECRET_ACCESS_KEY", "wrong"), 3, &["writing s3://dumps/out", "refuses", "403"]);
    to("https://127.0.0.1:1/out", ("A", "b"), 2, &["nothing can be written to http"]);
    let same = store.run(&["-f", &url, &url]);
    assert!(same.status.code() == Some(2) && same.stderr.contains("is the dump itself"), "{}", same.stderr);
    // A server that knows no ranges.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut asked = [0; 4096];
            let _ = io::Read::read(&mut client, &mut asked);
            let _ = io::Write::write_all(
                &mut client,
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd",
            );
        }
    });
    said(
        store.command().arg(format!("http://127.0.0.1:{port}/vmcore")),
        2,
        &["gives no ranges", "fetch the object first"],
    );
}

/// The functions of the library, in a process with the environment that they need.
/// An archive in a store, cut into the store: what is there is left, and no object is fetched to know that.
#[test]
fn archives() {
    let store = Store::new("archive");
    let dump = synthetic();
    for folder in ["in/a", "in/b/c"] {
        std::fs::create_dir_all(store.file(folder)).unwrap();
    }
    store.put("in/a/vmcore", &dump);
    store.put("in/b/c/seekable.zst", &frames(&std::fs::read(&fixture().vmcore).unwrap(), 128 << 10, true));
    store.put("in/b/words", b"no dump at all");
    let small = local("archive.small", &["-q", "-f"], &store.file("in/a/vmcore"));
    let real = local("archive.real", &["-q", "-f"], &fixture().vmcore);
    let manifests = scratch().join("archive-manifests");
    let (top, to) = (url("in"), url("in/cuts"));
    let bulk = |options: &[&str]| {
        let fixed = ["bulk", "--report", "json", "--manifest", text(&manifests), &top, "--out", &to];
        let before = store.front.bytes();
        let summary: serde_json::Value = serde_json::from_str(&store.cut(&[&fixed[..], options].concat())).unwrap();
        let count = |what: &str| summary[what]["inputs"].as_u64().unwrap();
        (count("cut"), count("before"), count("left"), store.front.bytes() - before)
    };
    let (cut, _, left, first) = bulk(&[]);
    assert_eq!((cut, left), (2, 1));
    for (name, want) in [("a/vmcore", &small), ("b/c/seekable.zst", &real)] {
        assert!(std::fs::read(store.file(&format!("in/cuts/{name}.kdump"))).unwrap() == *want, "{name}");
    }
    let (cut, before, left, again) = bulk(&[]);
    assert_eq!((cut, before, left), (0, 2, 1));
    assert!(again < 100_000 && again < first / 100, "{again} bytes to see that all is done, {first} to do it");
    std::fs::remove_file(store.file("in/cuts/a/vmcore.kdump")).unwrap();
    assert_eq!(bulk(&[]).0, 1);
    // Somebody's object.
    store.put("in/a/new", &dump);
    store.put("in/cuts/a/new.kdump", b"mine");
    let ran = store.run(&["bulk", "-q", "--manifest", text(&manifests), &top, "--out", &to]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    assert!(std::fs::read(store.file("in/cuts/a/new.kdump")).unwrap() == b"mine" && ran.stderr.contains("exists"));
    // By a list; files of this machine into the store.
    let (list, own) = (scratch().join("archive-list"), url("own"));
    let dumps = scratch().join("archive-own");
    std::fs::create_dir_all(&dumps).unwrap();
    std::fs::write(dumps.join("vmcore"), &dump).unwrap();
    let plan = ["bulk", "-q", "--manifest", text(&manifests), "--plan", text(&list), text(&dumps), "--out", &own];
    assert!(store.run(&plan).status.success());
    assert_eq!(store.run(&["bulk", "-q", "--collect", text(&list)]).status.code(), Some(3));
    store.cut(&["bulk", "-q", "--work", text(&list), "--index", "0"]);
    store.cut(&["bulk", "-q", "--collect", text(&list)]);
    assert!(std::fs::read(store.file("own/vmcore.kdump")).unwrap() == small);
    for wrong in [&["--out", &to][..], &["--out", text(&dumps), "--delete-source"]] {
        assert_eq!(store.run(&[&["bulk", &top][..], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn the_library_lists_and_removes() {
    let store = Store::new("library");
    store.put("b", b"22");
    std::fs::create_dir_all(store.file("c")).unwrap();
    store.put("c/a", b"1");
    store.put("c/z", b"333");
    let mut child = Command::new(std::env::current_exe().unwrap());
    environment(&mut child, store.front.port);
    let ran = run(child.args(["--ignored", "--exact", "in_a_process_of_its_own"]), Duration::from_secs(60));
    assert!(ran.status.success() && ran.stdout.contains("1 passed"), "{}{}", ran.stdout, ran.stderr);
    assert!(!store.file("b").exists());
}

#[test]
#[ignore = "the_library_lists_and_removes runs it"]
fn in_a_process_of_its_own() {
    let all = objects::list("s3://dumps").unwrap();
    let told: Vec<(&str, u64)> = all.iter().map(|o| (o.url.as_str(), o.size)).collect();
    assert_eq!(told, [("s3://dumps/b", 2), ("s3://dumps/c/a", 1), ("s3://dumps/c/z", 3)]);
    assert_eq!(objects::list("s3://dumps/c/").unwrap().len(), 2);
    assert!(objects::list("s3://dumps/none").unwrap().is_empty());
    let one = objects::head("s3://dumps/c/z").unwrap();
    assert!(one.size == 3 && one.modified.elapsed().unwrap() < Duration::from_secs(600));
    assert!(objects::head("s3://dumps/none").is_err());
    assert_eq!(["b", "none"].map(|name| objects::exists(&url(name)).unwrap()), [true, false]);
    objects::remove("s3://dumps/b").unwrap();
    assert!(!objects::exists("s3://dumps/b").unwrap());
}
