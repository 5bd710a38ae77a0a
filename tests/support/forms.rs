//! A dump in the forms in which archives hold it, by makedumpfile and the ordinary compressors.

use super::tools::{run, scratch, tool};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// A scratch file of this test.
pub(crate) fn file(name: &str) -> PathBuf {
    scratch().join(name)
}

/// makedumpfile's output of a dump.
pub(crate) fn makedumpfile(dump: &Path, name: &str, options: &[&str]) -> PathBuf {
    let out = file(name);
    let mut command = Command::new(tool("makedumpfile-codecs"));
    command.args(options).arg(dump);
    if options.contains(&"-F") {
        let status = command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(File::create(&out).unwrap()).status();
        assert!(status.unwrap().success(), "{command:?}");
        return out;
    }
    let ran = run(command.arg("-f").arg(&out), LIMIT);
    let said = ran.stdout + &ran.stderr;
    // It goes on without compression where it lacks lzo or snappy.
    assert!(ran.status.success() && !said.contains("option is disabled"), "{command:?}: {said}");
    out
}

/// A file of makedumpfile's without compression, with its pages packed by snappy: no makedumpfile of Debian's does that.
pub(crate) fn with_snappy(name: &str, raw: &Path) -> PathBuf {
    let raw = std::fs::read(raw).unwrap();
    let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().unwrap());
    let (sub_blocks, bitmap_blocks) = (word(432) as usize, word(436) as usize);
    let second = (1 + sub_blocks + bitmap_blocks / 2) * 4096;
    let first = (1 + sub_blocks + bitmap_blocks) * 4096;
    let count: usize = raw[second..first].iter().map(|b| b.count_ones() as usize).sum();
    let mut out = raw[..first + count * 24].to_vec();
    out[424..428].copy_from_slice(&4_u32.to_le_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for at in (first..first + count * 24).step_by(24) {
        assert_eq!((word(at + 8), word(at + 12)), (4096, 0));
        let page = &raw[long(at) as usize..][..4096];
        let packed = encoder.compress_vec(page).unwrap();
        let (bytes, flag) = if packed.len() < 4096 { (&packed[..], 4_u32) } else { (page, 0) };
        let place = out.len() as u64;
        out[at..at + 8].copy_from_slice(&place.to_le_bytes());
        out[at + 8..at + 12].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        out[at + 12..at + 16].copy_from_slice(&flag.to_le_bytes());
        out.extend(bytes);
    }
    let path = file(name);
    std::fs::write(&path, out).unwrap();
    path
}

/// `input` through a program that writes to standard output.
pub(crate) fn through(name: &str, program: &str, options: &[&str], input: &Path) -> PathBuf {
    let out = file(name);
    let mut command = Command::new(program);
    command.args(options).stdin(File::open(input).unwrap()).stdout(File::create(&out).unwrap());
    let status = command.status().unwrap_or_else(|e| panic!("{program}: {e}: run .ci/tools"));
    assert!(status.success(), "{command:?}");
    out
}

/// The three parts of a split dump.
pub(crate) fn split(dump: &Path) -> [PathBuf; 3] {
    let parts = ["part-1", "part-2", "part-3"].map(file);
    let mut command = Command::new(tool("makedumpfile"));
    // Else all of a small machine is in the first part.
    command.args(["-c", "-d", "1", "-f", "--splitblock-size", "4096", "--split"]);
    let ran = run(command.arg(dump).args(&parts), LIMIT);
    assert!(ran.status.success(), "{}", ran.stderr);
    parts
}

/// zstd frames of `size` plain bytes each, with a seek table behind or none.
pub(crate) fn frames(bytes: &[u8], size: usize, table: bool) -> Vec<u8> {
    let (mut out, mut entries, mut count) = (Vec::new(), Vec::new(), 0_u32);
    for part in bytes.chunks(size) {
        let packed = zstd::bulk::compress(part, 1).unwrap();
        entries.extend((packed.len() as u32).to_le_bytes());
        entries.extend((part.len() as u32).to_le_bytes());
        out.extend(packed);
        count += 1;
    }
    if table {
        entries.extend(count.to_le_bytes());
        entries.push(0);
        entries.extend(0x8f92_eab1_u32.to_le_bytes());
        out.extend(0x184d_2a5e_u32.to_le_bytes());
        out.extend((entries.len() as u32).to_le_bytes());
        out.extend(entries);
    }
    out
}
